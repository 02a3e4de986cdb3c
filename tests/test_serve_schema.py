"""The service against its own OpenAPI: requests that schemathesis makes of it, by what it says and against it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from exported import handmade
from test_serve import Running, running

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(handmade(tmp_path_factory.mktemp("exported"))) as found:
        yield found


@pytest.fixture(scope="module", autouse=True)
def lines() -> None:
    """Lines of JSON are text to schemathesis."""

    def sent(_: Any, value: Any) -> bytes:
        return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")

    def came(_: Any, response: Any) -> Any:
        return response.content.decode()

    schemathesis.serializer("application/x-ndjson")(sent)
    schemathesis.deserializer("application/x-ndjson")(came)


@pytest.mark.parametrize("examples", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_answers_are_what_the_schema_says(here: Running, examples: int, tmp_path: Path) -> None:
    """None is a 5xx; each has a status, a content type and a body that the schema names."""
    from click.testing import CliRunner
    from schemathesis.cli import schemathesis as command

    at, settings = f"http://127.0.0.1:{here.port}", tmp_path / "schemathesis.toml"
    settings.write_text(f'[parameters]\n"path.model" = "{here.service.name}"\n')
    asked = ["--config-file", str(settings), "run", f"{at}/openapi.json", "--checks", CHECKS, "--no-color"]
    more = ["--max-examples", str(examples), "--mode", "all", "--generation-deterministic"]
    found = CliRunner().invoke(command, [*asked, *more])
    print(found.output[-3000:])
    assert found.exit_code == 0


def test_every_answer_of_json_has_a_schema(here: Running) -> None:
    paths = here.ask("GET", "/openapi.json")[2]["paths"]
    bare = [
        (path, method, status)
        for path, methods in paths.items()
        for method, about in methods.items()
        for status, answer in about["responses"].items()
        if answer.get("content", {}).get("application/json", {}).get("schema") == {}
    ]
    assert bare == [], json.dumps(bare)
