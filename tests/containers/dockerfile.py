"""A Dockerfile as stages of instructions. No heredocs, no ONBUILD: ours have none."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Instruction:
    name: str
    value: str

    @property
    def words(self) -> list[str]:
        """The words of an exec form. Raises ValueError for a shell form."""
        return [str(word) for word in json.loads(self.value)]


@dataclass(frozen=True, slots=True)
class Stage:
    name: str
    instructions: tuple[Instruction, ...]

    def all(self, name: str) -> list[Instruction]:
        return [instruction for instruction in self.instructions if instruction.name == name]

    def last(self, name: str) -> Instruction:
        return self.all(name)[-1]

    def position(self, pattern: str) -> int:
        """Of the first instruction that matches. Raises StopIteration."""
        found = (i for i, each in enumerate(self.instructions) if re.search(pattern, f"{each.name} {each.value}"))
        return next(found)


def read_instructions(path: Path) -> list[Instruction]:
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    pairs = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [Instruction(name.upper(), value) for name, value in pairs]


def read_stages(path: Path) -> dict[str, Stage]:
    stages: dict[str, list[Instruction]] = {}
    for instruction in read_instructions(path):
        if instruction.name == "FROM":
            name = instruction.value.split(" AS ")[1]
            stages[name] = []
        stages[name].append(instruction)
    return {name: Stage(name, tuple(instructions)) for name, instructions in stages.items()}
