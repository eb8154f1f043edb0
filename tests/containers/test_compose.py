"""The compose files, as docker compose itself reads them (`config` needs no engine)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gigamask.settings import Settings
from tests.containers.dockerfile import read_stages

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "docker-compose.yml"
GPU = ROOT / "docker-compose.gpu.yml"
OURS = ("service", "worker-ingest", "worker-segment", "worker-assemble")
GIB = 1024**3


def compose(*files: Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    words = [word for file in files for word in ("-f", str(file))]
    command = [Path(sys.executable).with_name("docker-compose"), *words, "config", "--format", "json"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIGAMASK_")}
    return subprocess.run(command, capture_output=True, text=True, env=inherited | (environment or {}))


def services(*files: Path, environment: dict[str, str] | None = None) -> dict[str, dict[str, Any]]:
    done = compose(*files, environment=environment)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)["services"])


@pytest.fixture(scope="module")
def base() -> dict[str, dict[str, Any]]:
    return services(BASE)


def seconds(duration: str) -> int:
    """`5m0s` -> 300."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", duration)
    assert found is not None
    hours, minutes, rest = (int(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + rest


def test_compose_accepts_the_files_without_a_word() -> None:
    for files in ((BASE,), (BASE, GPU)):
        done = compose(*files)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("key", "bad"), [("depends_on:", "depend_on:"), ("cap_drop:", "drop_caps:")])
def test_a_bad_key_fails(tmp_path: Path, key: str, bad: str) -> None:
    file = tmp_path / "docker-compose.yml"
    file.write_text(BASE.read_text().replace(key, bad))
    done = compose(file)
    assert done.returncode != 0
    assert bad.rstrip(":") in done.stderr


def test_a_bad_key_in_the_override_fails(tmp_path: Path) -> None:
    file = tmp_path / "docker-compose.gpu.yml"
    file.write_text(GPU.read_text().replace("devices:", "device:"))
    assert compose(BASE, file).returncode != 0


def test_yamllint_finds_nothing() -> None:
    config = ROOT / "docker" / "yamllint.yaml"
    command = [sys.executable, "-m", "yamllint", "--strict", "-c", config, BASE, GPU, config]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_whole_main_job_is_there(base: dict[str, dict[str, Any]]) -> None:
    assert set(base) == {*OURS, "redis"}


def test_every_setting_is_a_field_of_settings(base: dict[str, dict[str, Any]]) -> None:
    fields = {f"GIGAMASK_{name.upper()}" for name in Settings.model_fields}
    dockerfiles = [stage for path in (ROOT / "docker").glob("*.Dockerfile") for stage in read_stages(path).values()]
    in_images = {name for stage in dockerfiles for each in stage.all("ENV") for name in _names(each.value)}
    in_files = set(_names(BASE.read_text() + GPU.read_text()))
    assert in_images and in_files
    assert (in_images | in_files) - fields == set()


def _names(text: str) -> list[str]:
    return re.findall(r"GIGAMASK_[A-Z0-9_]+", text)


def test_settings_accept_the_environment_of_every_container(
    base: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in OURS:
        for variable, value in base[name]["environment"].items():
            monkeypatch.setenv(variable, value)
        settings = Settings(_env_file=None)
        assert settings.redis_url == "redis://redis:6379/0"
    assert (settings.host, settings.port) == ("0.0.0.0", 8000)


def test_an_adjusted_setting_reaches_every_container_but_not_what_is_the_containers_own(tmp_path: Path) -> None:
    file = tmp_path / "docker-compose.yml"
    file.write_text(BASE.read_text())
    (tmp_path / ".env").write_text("GIGAMASK_LEASE_S=45\nGIGAMASK_PORT=9000\nGIGAMASK_STORE=/elsewhere\n")
    found = services(file)
    for name in OURS:
        assert found[name]["environment"]["GIGAMASK_LEASE_S"] == "45"
        assert found[name]["environment"]["GIGAMASK_STORE"] == "/var/lib/gigamask"
    assert found["service"]["environment"]["GIGAMASK_PORT"] == "8000"
    assert found["service"]["ports"][0]["published"] == "9000"


@pytest.mark.parametrize("name", [*OURS, "redis"])
def test_every_container_is_restricted(base: dict[str, dict[str, Any]], name: str) -> None:
    container = base[name]
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert container["restart"] == "unless-stopped"
    assert container["deploy"]["resources"]["limits"].keys() >= {"memory", "pids"}
    assert not container.get("privileged") and "docker.sock" not in json.dumps(container)


def test_only_the_service_is_published_and_only_to_this_machine(base: dict[str, dict[str, Any]]) -> None:
    assert [name for name in base if base[name].get("ports")] == ["service"]
    assert [port["host_ip"] for port in base["service"]["ports"]] == ["127.0.0.1"]


def test_workers_and_redis_cannot_reach_out(base: dict[str, dict[str, Any]]) -> None:
    networks = json.loads(compose(BASE).stdout)["networks"]
    assert networks["queue"]["internal"] is True
    for name in set(base) - {"service"}:
        assert list(base[name]["networks"]) == ["queue"]


def test_all_containers_share_the_store(base: dict[str, dict[str, Any]]) -> None:
    for name in OURS:
        mounts = {mount["target"]: mount.get("source") for mount in base[name]["volumes"]}
        assert mounts[base[name]["environment"]["GIGAMASK_STORE"]] == "store"


def test_every_container_starts_after_redis_is_healthy(base: dict[str, dict[str, Any]]) -> None:
    for name in OURS:
        assert base[name]["depends_on"]["redis"]["condition"] == "service_healthy"
    assert base["redis"]["healthcheck"]["test"] == ["CMD", "redis-cli", "-e", "ping"]


def test_redis_keeps_what_was_queued(base: dict[str, dict[str, Any]]) -> None:
    words = base["redis"]["command"]
    assert words[words.index("--appendonly") + 1] == "yes"
    assert words[words.index("--maxmemory-policy") + 1] == "noeviction"
    assert {mount["target"] for mount in base["redis"]["volumes"]} == {"/data"}


def test_a_worker_has_time_to_finish_what_it_holds(base: dict[str, dict[str, Any]]) -> None:
    lease_s = Settings.model_fields["lease_s"].default
    for name in OURS[1:]:
        assert seconds(base[name]["stop_grace_period"]) >= 60 > lease_s


def test_ingest_has_the_memory_that_its_limit_promises_the_child(base: dict[str, dict[str, Any]]) -> None:
    limit = int(base["worker-ingest"]["deploy"]["resources"]["limits"]["memory"])
    assert limit >= Settings.model_fields["ingest_memory_bytes"].default + GIB // 2


def test_ingest_spills_to_disk_and_not_to_memory(base: dict[str, dict[str, Any]]) -> None:
    ingest = base["worker-ingest"]
    assert "/tmp" not in "".join(ingest.get("tmpfs") or [])
    assert {"type": "volume", "target": "/tmp"} in [
        {key: mount[key] for key in ("type", "target")} for mount in ingest["volumes"]
    ]


def test_every_build_names_a_dockerfile_and_a_target_that_exist(base: dict[str, dict[str, Any]]) -> None:
    merged = services(BASE, GPU)
    for name in OURS:
        for build in (base[name]["build"], merged[name]["build"]):
            stages = read_stages(ROOT / build["dockerfile"])
            assert build.get("target", "service") in stages


def test_the_override_gives_the_segment_worker_a_gpu_and_changes_nothing_else(base: dict[str, dict[str, Any]]) -> None:
    merged = services(BASE, GPU)
    segment = merged["worker-segment"]
    devices = segment["deploy"]["resources"]["reservations"]["devices"]
    assert [(device["driver"], device["capabilities"]) for device in devices] == [("nvidia", ["gpu"])]
    assert (segment["build"]["target"], segment["image"]) == ("gpu", "gigamask-worker:gpu")
    assert segment["environment"] == base["worker-segment"]["environment"] | {"GIGAMASK_DEVICE": "cuda"}
    assert segment["cap_drop"] == ["ALL"] and segment["deploy"]["resources"]["limits"]["pids"]
    assert {name: merged[name] for name in merged if name != "worker-segment"} == {
        name: base[name] for name in base if name != "worker-segment"
    }


def test_the_override_that_the_documentation_shows_is_accepted(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    shown = re.search(r"```yaml\n(services:.*?)```", page, re.DOTALL)
    assert shown is not None
    file = tmp_path / "docker-compose.models.yml"
    file.write_text(shown[1])
    merged = services(BASE, file)
    for name in ("service", "worker-segment"):
        assert merged[name]["environment"]["GIGAMASK_MODELS"] == "/opt/gigamask/models:/models"
        assert "/models" in {mount["target"] for mount in merged[name]["volumes"]}
