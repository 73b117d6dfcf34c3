"""Files in IDX format: written here byte by byte, whole and damaged."""

import gzip
import os
import struct
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fstat.datasets import fetch_digits, load_digits, load_idx
from fstat.methods import Moments

CODES = {"u1": 8, "i1": 9, ">i2": 11, ">i4": 12, ">f4": 13, ">f8": 14}

# Few digits are too few to select from.
pytestmark = pytest.mark.filterwarnings("ignore::fstat.selection.SelectionWarning")


def idx(array, code=None):
    array = np.asarray(array)
    kind = array.dtype.newbyteorder(">").str.lstrip("|")
    head = bytes([0, 0, CODES[kind] if code is None else code, array.ndim])
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return head + sizes + array.astype(kind).tobytes()


@pytest.fixture
def write(tmp_path):
    def write(content, name="file"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (0, 3)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_every_type_and_shape(write, kind, shape, pack):
    rng = np.random.default_rng(0)
    array = rng.integers(-100 if kind != "u1" else 0, 127, shape).astype(kind)
    got = load_idx(write(pack(idx(array))))
    assert_array_equal(got, array)
    assert got.dtype == np.dtype(kind).newbyteorder("=") and got.flags.writeable


def test_bytes_of_the_format():
    # From the description of the format: a 2 x 3 matrix of 16-bit integers.
    content = bytes.fromhex("00000b02 00000002 00000003 0001 0002 0003 fffe 0100 7fff")
    assert content == idx(np.array([[1, 2, 3], [-2, 256, 32767]], ">i2"))


def test_content_decides_and_not_the_name(write):
    array = np.arange(4, dtype="u1")
    assert_array_equal(load_idx(str(write(idx(array), "plain.gz"))), array)
    assert_array_equal(load_idx(write(gzip.compress(idx(array)), "packed")), array)


GOOD = idx(np.arange(6, dtype="u1").reshape(2, 3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with two zero bytes, got nothing"),
        (b"PK\3\4 and so on", "starts with two zero bytes, got 50 4b 03 04"),
        (GOOD[:3], "starts with two zero bytes"),
        (b"\0\1" + GOOD[2:], "starts with two zero bytes, got 00 01 08 02"),
        (b"\0\0\x0a" + GOOD[3:], "must have a type code among 0x08, .*, got 0x0a"),
        (b"\0\0\x08\0", "must state its dimensions .*, got 0 dimensions"),
        (GOOD[:10], "must state its dimensions in its first 12 bytes, got 2 dim"),
        (GOOD[:-1], r"must hold 6 bytes after .* shape \(2, 3\) of uint8, got 5"),
        (GOOD + b"\0", r"must hold 6 bytes after .* shape \(2, 3\) of uint8, got more"),
        (b"\0\0\x0e\4" + 16 * b"\xff", "of float64, got 0"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_damaged_files_are_named(write, content, message, pack):
    with pytest.raises(ValueError, match="damaged.idx` .*" + message):
        load_idx(write(pack(content), "damaged.idx"))


@pytest.mark.parametrize("cut", [5, 12, -9, -1])
def test_truncated_gzip(write, cut):
    path = write(gzip.compress(GOOD)[:cut], "cut.gz")
    with pytest.raises(ValueError, match=r"cut.gz` is damaged, or is not a compl"):
        load_idx(path)


def test_gzip_with_a_wrong_checksum(write):
    content = bytearray(gzip.compress(GOOD))
    content[-8] ^= 1
    with pytest.raises(ValueError, match="is not a complete IDX file"):
        load_idx(write(bytes(content)))


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_idx(tmp_path / "nothing")


# Folders of digits


def digits_of(n, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n, dtype="u1") % 10
    return rng.integers(0, 256, (n, 28, 28)).astype("u1"), labels


def write_folder(folder, link="-", end="", pack=bytes, train=None, test=None):
    folder.mkdir(exist_ok=True)
    parts = {"train": train or digits_of(30), "t10k": test or digits_of(20, 1)}
    for prefix, (images, labels) in parts.items():
        for kind, array, size in (("images", images, 3), ("labels", labels, 1)):
            name = f"{prefix}-{kind}{link}idx{size}-ubyte{end}"
            (folder / name).write_bytes(pack(idx(array)))
    return folder


@pytest.mark.parametrize("link", "-.")
@pytest.mark.parametrize(("end", "pack"), [("", bytes), (".gz", gzip.compress)])
def test_folders_in_either_style(tmp_path, link, end, pack):
    folder = write_folder(tmp_path / "data", link, end, pack)
    for subset, expected in (("train", digits_of(30)), ("test", digits_of(20, 1))):
        got = load_digits(str(folder), subset)
        assert_array_equal(got.images, expected[0])
        assert_array_equal(got.labels, expected[1])
        assert got.images.dtype == np.uint8 and got.labels.dtype == np.int64
    assert_array_equal(load_digits(folder).images, load_digits(folder, "train").images)


def test_what_was_looked_for_is_listed(tmp_path):
    folder = write_folder(tmp_path / "data")
    (folder / "t10k-labels-idx1-ubyte").unlink()
    load_digits(folder)
    with pytest.raises(FileNotFoundError) as error:
        load_digits(folder, "test")
    for name in (
        str(folder),
        "t10k-labels-idx1-ubyte,",
        "t10k-labels.idx1-ubyte,",
        "t10k-labels-idx1-ubyte.gz",
        "t10k-labels.idx1-ubyte.gz",
    ):
        assert name in str(error.value)
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte, "):
        load_digits(tmp_path / "no such folder")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((3, 27, 28), "u1"), [0, 1, 2], "images-.*` must hold images of 28"),
        (np.zeros((3, 784), "u1"), [0, 1, 2], r"got uint8 of shape \(3, 784\)"),
        (np.zeros((3, 28, 28), "f4"), [0, 1, 2], "got float32"),
        (np.zeros((3, 28, 28), "u1"), [0, 1], "labels-.*` must hold one byte for each"),
        (np.zeros((3, 28, 28), "u1"), [[0], [1], [2]], r"got uint8 of shape \(3, 1\)"),
        (np.zeros((3, 28, 28), "u1"), [0, 1, 10], "must hold labels from 0 to 9, got"),
    ],
)
def test_other_data_are_refused(tmp_path, images, labels, message):
    folder = write_folder(
        tmp_path / "data", train=(images, np.array(labels, dtype="u1"))
    )
    with pytest.raises(ValueError, match=message):
        load_digits(folder)
    with pytest.raises(ValueError, match="`subset` must be one of 'train', 'test'"):
        load_digits(folder, "validation")


def test_fetched_digits_are_split_as_the_files_are(monkeypatch):
    asked = []

    def fetch_openml(name, **options):
        asked.append((name, options))
        images = np.zeros((70_000, 784))
        images[:, 0] = np.arange(70_000) % 251
        return images, (np.arange(70_000) % 10).astype(str).astype(object)

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch_openml)
    train, test = fetch_digits(), fetch_digits("test", data_home="somewhere")
    assert train.images.shape == (60_000, 28, 28) and test.images.shape[0] == 10_000
    assert train.images.dtype == np.uint8 and train.labels.dtype == np.int64
    assert_array_equal(test.images[:, 0, 0], np.arange(60_000, 70_000) % 251)
    assert_array_equal(test.labels[:3], [0, 1, 2])
    assert [name for name, _ in asked] == ["mnist_784"] * 2
    assert [options["data_home"] for _, options in asked] == [None, "somewhere"]
    with pytest.raises(ValueError, match="`subset` must be one of"):
        fetch_digits("all")


# The command


@pytest.fixture(scope="module")
def patterns():
    """Noisy images of ten patterns, easy to learn."""
    rng = np.random.default_rng(0)
    pattern = rng.uniform(0, 160, (10, 28, 28))

    def draw(n):
        labels = (np.arange(n) % 10).astype("u1")
        noise = rng.uniform(0, 95, (n, 28, 28))
        return (pattern[labels] + noise).astype("u1"), labels

    return {"train": draw(700), "test": draw(90)}


@pytest.fixture
def command(monkeypatch):
    """The command line, without writing the page; returns what it told."""
    pytest.importorskip("torch")
    from fstat_torch.mnist import __main__ as module

    def command(*arguments):
        told = []
        monkeypatch.setattr(module, "write", lambda result, *out: told.append(result))
        module.main([str(argument) for argument in arguments])
        return told[0]

    return command


def test_sizes_are_those_of_the_files(tmp_path, patterns, command):
    folder, out = write_folder(tmp_path / "data", **patterns), tmp_path / "out"
    result = command(
        "--data", folder, "--noise", 0.1, "--epochs", 4, "--n-targets", 5, "--out", out
    )
    assert (result.config.n_train, result.config.n_test) == (700, 90)
    assert result.data.trusted.sum() == 70
    # Examples and test digits have the numbers they have in the files.
    images, labels = patterns["train"]
    assert_array_equal(result.data.x.numpy()[:, 0], images.astype("f4") / 255)
    assert_array_equal(result.table["true_label"], labels)
    test_images, test_labels = patterns["test"]
    assert_array_equal(result.data.x_test.numpy()[:, 0], test_images.astype("f4") / 255)
    assert_array_equal(result.data.y_test.numpy(), test_labels)
    # What was recorded on the way is gone.
    assert list(out.iterdir()) == []


def test_fewer_digits_and_traces_that_are_kept(tmp_path, patterns, command):
    from fstat import FInfluence, Trace

    folder, kept = write_folder(tmp_path / "data", **patterns), tmp_path / "traces"
    sizes = ("--n-train", 600, "--n-trusted", 99, "--n-targets", 5, "--epochs", 4)
    sizes += ("--noise", 0.1)
    result = command("--data", folder, *sizes, "--traces", kept, "--out", tmp_path)
    assert len(result.table) == 600 and result.data.trusted.sum() == 99
    assert sorted(path.name for path in kept.iterdir()) == ["all", "output"]
    trace = Trace.load(kept / "output")
    # 24 examples are too few for a batch of their own, and join the ninth.
    assert trace.n_recorded == trace.n_steps == 4 * 9
    again = FInfluence(method=Moments(shrinkage="moderated")).fit(
        trace.observations(range(600))
    )
    assert_array_equal(again.mu_, result.table["mu"])


def test_openml_by_name(tmp_path, patterns, command, monkeypatch):
    from fstat.datasets import Digits
    from fstat_torch.mnist import checks as module

    parts = {name: Digits(x, y.astype(int)) for name, (x, y) in patterns.items()}
    monkeypatch.setattr(module, "fetch_digits", parts.get)
    result = command("--data", "openml", "--epochs", 4, "--out", tmp_path)
    assert (result.config.n_train, result.config.n_test) == (700, 90)


def test_more_digits_than_there_are(tmp_path, patterns, command):
    folder = write_folder(tmp_path / "data", **patterns)
    more = "--n-train", 701, "--noise", 0.1, "--out", tmp_path
    with pytest.raises(SystemExit, match="`n_train` and `n_validation` must not exce"):
        command("--data", folder, *more)
    from fstat_torch.mnist import Config, run

    with pytest.raises(ValueError, match="`n_test` must not exceed the 90 test dig"):
        run(
            Config(n_train=100, n_test=91),
            load_digits(folder),
            test_digits=load_digits(folder, "test"),
        )


def test_a_file_that_holds_more_than_it_declares_is_not_unpacked(write):
    head = idx(np.zeros(3, "u1"))
    longer = write(gzip.compress(head + bytes(2**26)), "longer")
    # ... or declares more than a file of its size is believed to hold.
    hollow = gzip.compress(head[:4] + b"\xff" * 4 + bytes(2**27))
    hollow = write(hollow, "hollow")
    tracemalloc.start()
    with pytest.raises(ValueError, match="must hold 3 bytes after its header"):
        load_idx(longer)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    with pytest.raises(ValueError, match="must hold 4294967295 bytes"):
        load_idx(hollow)
    assert tracemalloc.get_traced_memory()[1] < 2**28
    tracemalloc.stop()


def test_devices_are_not_read_and_links_to_files_are(write, tmp_path):
    with pytest.raises(ValueError, match="must be a regular file"):
        load_idx("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="must be a regular file"):
        load_idx(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(write(GOOD))
    assert load_idx(tmp_path / "link").shape == (2, 3)
    with pytest.raises(FileNotFoundError, match="check the path"):
        load_idx(tmp_path / "missing")
