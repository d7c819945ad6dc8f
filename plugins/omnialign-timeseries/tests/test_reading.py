"""Files and in-memory forms, sound, odd and hostile."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from omnialign_timeseries import Series, TimeSeries, reading
from pyarrow import parquet

from omnialign import Claim, ReadError

MODALITY = TimeSeries()
VALUES = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
NAMES = ("x", "y", "z")
DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"


def npy(array: np.ndarray[Any, Any], **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def table(columns: dict[str, Any], metadata: dict[str, str] | None = None) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.table(columns).replace_schema_metadata(metadata), file)
    return file.getvalue()


def refused(source: object, message: str) -> None:
    with pytest.raises(ReadError, match=message):
        MODALITY.read(source)


def test_npy_of_one_and_many_channels() -> None:
    assert torch.equal(MODALITY.read(npy(VALUES)).values, torch.from_numpy(VALUES))
    assert torch.equal(
        MODALITY.read(npy(np.asfortranarray(VALUES))).values[:, 1:], torch.from_numpy(VALUES[:, 1:])
    )
    series = MODALITY.read(npy(np.arange(5)))
    assert series.values.tolist() == [[0], [1], [2], [3], [4]]
    assert (series.sample_rate_hz, series.channels) == (None, None)


def test_npz_declares_rate_and_names() -> None:
    series = MODALITY.read(npz(values=VALUES, sample_rate_hz=np.array([20]), channels=NAMES))
    assert (series.sample_rate_hz, series.channels) == (20.0, NAMES)
    assert MODALITY.read(npz(anything=VALUES)).values.shape == (40, 3)


def test_csv_rate_from_its_clock() -> None:
    rows = "\n".join(f"{i / 30:.3f},{i},{i % 2}" for i in range(300))
    series = MODALITY.read(b"\xef\xbb\xbfTime,x,y\r\n" + rows.encode())
    assert series.channels == ("x", "y")
    assert series.values[:3].tolist() == [[0, 0], [1, 1], [2, 0]]
    assert series.sample_rate_hz == pytest.approx(30, rel=1e-4)


def test_csv_without_a_clock_has_no_rate() -> None:
    assert MODALITY.read(b"x,y\n1,2\n3,4\n").sample_rate_hz is None
    assert MODALITY.read(b"time,y\n1,2\n").sample_rate_hz is None


def test_an_uneven_clock_is_made_even() -> None:
    series = MODALITY.read(b"time_seconds,x\n0,0\n1,10\n2,20\n4,40\n5,50\n")
    assert series.sample_rate_hz == 1
    assert series.values[:, 0].tolist() == [0, 10, 20, 30, 40, 50]


def test_a_clock_of_milliseconds_is_refused() -> None:
    since_1970 = b"timestamp,x\n1700000000000,1\n1700000000020,2\n"
    with pytest.raises(ReadError, match=r"'timestamp'.*seconds, found 1700000000020.*by 1000"):
        MODALITY.read(since_1970)
    assert MODALITY.read(b"timestamp,x\n1700000000,1\n1700000002,2\n").sample_rate_hz == 0.5


def test_dates_are_a_clock() -> None:
    text = "timestamp,x\n2024-01-01 00:00:00,1\n2024-01-01 00:00:02,2\n2024-01-01 00:00:04,3\n"
    assert MODALITY.read(text.encode()).sample_rate_hz == 0.5
    times = np.array(["2024-01-01T00:00:00.00", "2024-01-01T00:00:00.25"], "datetime64[ms]")
    assert MODALITY.read(table({"time": times, "x": [1.0, 2.0]})).sample_rate_hz == 4


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_the_dates_of_an_index_are_a_clock(zone: str | None) -> None:
    dates = pd.date_range("2024-01-01", periods=4, freq="20ms", tz=zone)
    series = MODALITY.read(pd.DataFrame({"x": [1.0, 2, 3, 4]}, index=dates))
    assert series.channels == ("x",)
    assert series.sample_rate_hz == pytest.approx(50)
    own = pd.DataFrame({"time": [0.0, 1, 2, 3], "x": [1.0, 2, 3, 4]}, index=dates)
    assert MODALITY.read(own).sample_rate_hz == 1
    assert MODALITY.read(pd.DataFrame({"x": [1.0, 2.0]})).sample_rate_hz is None


def test_spaces_around_names_and_counted_columns() -> None:
    series = MODALITY.read(b"x, time \n1,0\n2,0.5\n")
    assert (series.channels, series.sample_rate_hz) == (("x",), 2)
    assert MODALITY.read(b"0,1\n5,6\n7,8\n").values.tolist() == [[5, 6], [7, 8]]
    assert MODALITY.read(b'"x","y"\n\n"5","6"\n\n').values.tolist() == [[5, 6]]


@pytest.mark.parametrize("dtype", [">f8", ">i2", "bool"])
def test_integers_booleans_and_other_byte_orders(dtype: str) -> None:
    values = MODALITY.read(np.array([[1, 0], [0, 1]], dtype)).values
    assert values.tolist() == [[1, 0], [0, 1]]
    assert values.dtype == torch.float32


def test_gaps_are_filled_by_lines() -> None:
    series = MODALITY.read(b"x,y\n,1\n2,nan\n,NA\n6,4\n")
    assert series.values.tolist() == [[2, 1], [2, 2], [4, 3], [6, 4]]


def test_parquet_types_and_metadata() -> None:
    columns = {
        "a": np.arange(3, dtype=np.int8),
        "b": [True, False, None],
        "c": np.float32([1, 2, 3]),
    }
    series = MODALITY.read(table(columns, {"sample_rate_hz": "12.5"}))
    assert series.channels == ("a", "b", "c")
    assert series.sample_rate_hz == 12.5
    assert series.values.tolist() == [[0, 1, 1], [1, 0, 2], [2, 0, 3]]


class DataFrame:
    """What is used of a pandas data frame."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self.columns = list(columns)
        self.data = columns

    def __iter__(self) -> Any:
        return iter(self.columns)

    def __getitem__(self, name: str) -> Any:
        return self.data[name]

    def to_numpy(self) -> Any:
        return np.stack([np.asarray(v) for v in self.data.values()], axis=1)


def test_in_memory_forms_agree() -> None:
    columns = {"time": (np.arange(40) / 20).tolist()}
    columns |= {name: VALUES[:, i].tolist() for i, name in enumerate(NAMES)}
    forms = [
        (VALUES, 20),
        (torch.from_numpy(VALUES).double(), 20.0),
        (VALUES.tolist(), np.float32(20)),
        {"values": VALUES, "sample_rate_hz": 20, "channels": list(NAMES)},
        Series(torch.from_numpy(VALUES), 20.0, NAMES),
        DataFrame(columns),
        io.BytesIO(npz(values=VALUES, sample_rate_hz=20)),
    ]
    for form in forms:
        series = MODALITY.read(form)
        assert series.sample_rate_hz == pytest.approx(20)
        assert series.channels in (None, NAMES)
        assert torch.equal(series.values, torch.from_numpy(VALUES))
    assert MODALITY.read(VALUES).sample_rate_hz is None


def test_reading_copies_the_array() -> None:
    array = VALUES.copy()
    series = MODALITY.read(array)
    array[:] = 0
    assert series.values.any()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (VALUES[:0], "shape"),
        (VALUES[None], "shape"),
        ((VALUES, 0), "rate above 0"),
        ((VALUES, "fast"), "rate above 0"),
        ((VALUES, float("nan")), "rate above 0"),
        (np.zeros((2, 5000)), r"channels.*\(T, C\)"),
        (np.array([1.0, np.inf]), "infinite"),
        (np.array([1e39]), "infinite"),
        (np.full((4, 2), np.nan), "channel 0 holds no value"),
        (np.array(["a"]), "wanted numbers"),
        (np.array([1j]), "wanted numbers"),
        ([[1.0], [1.0, 2.0]], "wanted an array"),
        ({"data": VALUES}, "'values'"),
        ({"values": VALUES, "channels": ["x"]}, "3 channel names, found 1"),
        ({"values": VALUES, "channels": "xyz"}, "3 channel names, found 'xyz'"),
        (DataFrame({"a": ["one", "two"]}), "column 'a': wanted numbers"),
        (3.0, "wanted a path"),
    ],
)
def test_refuses_arrays(source: object, message: str) -> None:
    refused(source, message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y\n1,2\n3,four\n", r"row 3, column 'y': wanted a number, found 'four'"),
        ("x,y\n1,2\n3\n", "row 3: wanted 2 cells, found 1"),
        ("x,x\n1,2\n", "different names"),
        ("x,y\n", "one row"),
        ("time\n1\n", "one channel"),
        ("x,y\n,1\n,2\n", r"channel 0 \('x'\) holds no value"),
        ("time,x\n0,1\n0,2\n", "time does not go on"),
        ("time,x\n0,1\n,2\n", "time in seconds"),
        ("time,x\nnoon,1\nnight,2\n", "column 'time': wanted numbers, found string"),
        ("time,x\n0,1\n1,1\n2,1\n9000,1\n", "cut the series at its gaps"),
        ("caf\xe9,x\n1,2\n", "UTF-8"),
        ("x,y\n1,inf\n", "found infinite ones"),
        ("1.5,2.5\n3,4\n", "header of channel names, found the numbers 1.5, 2.5"),
        ("x;y\n1;2\n", "wanted commas between cells, found ';'"),
        ("x\ty\n1\t2\n", "wanted commas between cells"),
        (",x\n0,5\n1,6\n", "column 1 has no name; .*index=False"),
        ("x\n'1,5'\n", "row 2: wanted 1 cells, found 2"),
    ],
)
def test_refuses_tables(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "walk.csv"
    path.write_bytes(text.encode("latin-1"))
    refused(path, rf"walk\.csv.*{message}")


def test_refuses_parquet_of_words() -> None:
    refused(table({"a": ["one"]}), "column 'a': wanted numbers, found string")
    refused(table({"a": [1.0]}, {"sample_rate_hz": "fast"}), "sample_rate_hz")


def test_never_unpickles(tmp_path: Path) -> None:
    for data in (npy(np.array([{}]), allow_pickle=True), npz(values=np.array([{}]))):
        refused(data, "never unpickled")


def test_headers_that_promise_more_than_there_is(tmp_path: Path) -> None:
    data = npy(VALUES)
    huge = data.replace(b"(40, 3), }" + b" " * 10, b"(4000000000, 3), }  ")
    assert len(huge) == len(data)
    assert huge != data
    path = tmp_path / "huge.npy"
    path.write_bytes(huge)
    refused(path, "promises.*cut off")
    refused(data[:-1], "promises.*cut off")


def test_archives() -> None:
    refused(npz(a=VALUES, b=VALUES), "wanted an array 'values' in the NPZ, found a, b")
    refused(npz(values=VALUES, sample_rate_hz=[1, 2]), "one number")
    refused(npz(values=VALUES)[:-30], "wanted an NPZ archive")
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("values.npy", b"words")
    refused(other.getvalue(), "sound NPY")


def test_bounds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(reading, "MAX_VALUES", 50)
    csv = b"x,y,z\n" + b"1,2,3\n" * 40
    forms = (VALUES, npy(VALUES), csv, table({n: VALUES[:, i] for i, n in enumerate(NAMES)}))
    for form in (*forms, npz(values=np.zeros((40, 30)))):
        refused(form, "too many|at most 50 values")
    monkeypatch.setattr(reading, "MAX_FILE_BYTES", 100)
    refused(io.BytesIO(csv), "cut it into parts")
    refused(io.StringIO("x"), "binary mode")


def test_content_that_is_not_what_the_suffix_says(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(b"x,y\n1,2\n")
    refused(path, r"wanted NPY, found a file that starts with b'x,y")


def test_claims() -> None:
    for suffix, claim in ((".npy", 1), (".npz", 1), (".csv", 2), (".PARQUET", 2), (".wav", 0)):
        assert MODALITY.claim(Path(f"a{suffix}")) == Claim(claim)
    assert MODALITY.claim(npy(VALUES)) == MODALITY.claim(npz(values=VALUES)) == Claim.COULD
    assert MODALITY.claim(io.BytesIO(table({"a": [1.0]}))) == Claim.OWNS
    assert MODALITY.claim(MODALITY.example_samples(1)[0]) == Claim.OWNS
    frame = type("DataFrame", (), {"__module__": "pandas.core.frame"})()
    assert MODALITY.claim(frame) == Claim.OWNS
    for other in (
        VALUES,
        (VALUES, 20),
        "a.csv",
        b"x,y\n1,2\n",
        b"PK\x03\x04word/",
        io.StringIO("a"),
    ):
        assert MODALITY.claim(other) == Claim.NO


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data is not here")
def test_real_files() -> None:
    for path in sorted((DATA / "uci_har" / "series").iterdir())[:20]:
        assert MODALITY.read(path).values.shape == (128, 9)
