"""What the pages say is what the code has: every setting, command, route and file has its line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cli.main import app
from gigamask.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("gigamask", "service", "model", "workers", "cli", "benchmarks")


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_every_setting_stands_on_the_settings_page_with_its_default() -> None:
    text = page("docs/settings.md")
    for name, field in Settings.model_fields.items():
        default = "the shipped `models/`" if name == "models" else f"`{field.default}`"
        assert f"| `GIGAMASK_{name.upper()}` | {default} | {field.description} |" in text


def test_the_settings_page_has_no_setting_that_the_code_lacks() -> None:
    named = set(re.findall(r"`GIGAMASK_([A-Z_]+)`", page("docs/settings.md")))
    assert named == {name.upper() for name in Settings.model_fields}


def test_every_command_stands_in_the_readme() -> None:
    text = page("README.md")
    names = [c.name or (c.callback.__name__ if c.callback else "") for c in app.registered_commands]
    assert len(names) >= 10
    for name in names:
        assert f"gigamask {name}" in text, name


def test_every_route_stands_on_the_http_page() -> None:
    from tests.service.conftest import bare_app

    words = page("docs/http.md").replace("`", "").replace("|", "\n").splitlines()
    text = {line.strip("# ").strip() for line in words}
    for path, methods in bare_app().openapi()["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}" in text, f"{method.upper()} {path}"


def _mapped_files() -> set[str]:
    packages = "|".join(PACKAGES)
    return set(re.findall(rf"`((?:{packages})/[\w/]+\.py)`", page("ARCHITECTURE.md")))


def test_the_map_in_architecture_names_every_module_and_no_other() -> None:
    modules = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert _mapped_files() == modules


PAGES = ["README.md", "ARCHITECTURE.md", *(f"docs/{n}.md" for n in ("http", "deploy", "sgnet", "training", "results"))]


@pytest.mark.parametrize("name", PAGES)
def test_links_between_pages_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page(name)):
        assert ((ROOT / name).parent / target).exists(), f"{name}: {target}"


def test_every_command_of_the_training_page_exists_and_its_python_runs() -> None:
    text = page("docs/training.md")
    commands = set(re.findall(r"python -m (model\.\w+)", text))
    assert commands == {"model.train", "model.evaluate", "model.experiments"}
    for name in commands:
        done = subprocess.run([sys.executable, "-m", name, "--help"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "docs/training.md", "exec"), {})  # noqa: S102


def test_every_data_set_and_every_host_has_its_word() -> None:
    from model.data.datasets import DATASETS
    from model.hosts import HOSTS

    for name in DATASETS:
        assert f"`{name}`" in page("docs/training.md"), name
    for name in HOSTS:
        assert f"`{name}`" in page("docs/sgnet.md"), name
