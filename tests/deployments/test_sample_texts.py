"""The sample shop where there is no server: what is refused at once."""

from __future__ import annotations

import pytest

from deployments.sample import SampleRefused, fill
from deployments.sample.__main__ import main


@pytest.mark.parametrize("megabytes", [0, -1])
def test_a_size_below_one_megabyte_is_refused(megabytes: int) -> None:
    with pytest.raises(SampleRefused, match="1 or more"):
        fill("postgresql://nobody@127.0.0.1:1/nothing", megabytes)


def test_the_command_says_in_one_sentence_that_the_address_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert main(["--megabytes", "1"]) == 1
    assert capsys.readouterr().err == "DATABASE_URL is not set: put the address of the database to fill into it.\n"
