"""What is printed of an error, by which process."""

import pytest

from omnialign.cli.output import fail


@pytest.mark.parametrize(("rank", "waits"), [("0", []), ("1", [10])])
def test_a_process_beside_the_main_one_speaks_later(
    rank: str,
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The launcher ends it before it repeats the main one; an error of its own is shown."""
    waited: list[float] = []
    monkeypatch.setattr("omnialign.cli.output.time.sleep", waited.append)
    monkeypatch.setenv("RANK", rank)
    with pytest.raises(SystemExit) as ended:
        fail("no [data] here")
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: no [data] here\n"
    assert waited == waits
