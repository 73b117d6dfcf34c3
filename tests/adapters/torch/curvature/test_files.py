"""Files of kept gradients and snapshots are what was written, or named."""

import errno
import os

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from fstat import Snapshots, Storage  # noqa: E402
from fstat._files import DamagedFileError  # noqa: E402
from fstat_torch import Curvature, SingleRunSampler  # noqa: E402

N, B = 24, 6


def data():
    g = torch.Generator().manual_seed(0)
    return torch.randn(N, 5, generator=g), torch.randint(3, (N,), generator=g)


def sampler_of(folder, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = data()
    targets = {"z": (x[:2], y[:2])}
    options = {"metric": Curvature(N, path=folder, landmarks=None), **options}
    return SingleRunSampler(model, optimizer=optimizer, targets=targets, **options)


def train(sampler, steps=8):
    x, y = data()
    for t in range(sampler.n_steps, sampler.n_steps + steps):
        index = torch.arange(t * B, (t + 1) * B) % N
        sampler.optimizer.zero_grad()
        with sampler.step(index):
            nn.functional.cross_entropy(sampler.model(x[index]), y[index]).backward()
        sampler.optimizer.step()
    return sampler


def kept(folder):
    """Train, and leave a folder; return the checkpoint and what it is worth."""
    sampler = train(sampler_of(folder))
    state = sampler.state_dict()
    sampler.snapshot()
    sampler.close()
    return state, sampler.snapshots.scores[-1]


def resumed(folder, state):
    sampler = sampler_of(folder)
    sampler.load_state_dict(state)
    # Parameters are those of the beginning, gradients are kept: one that is lost
    # is not scored.
    sampler.snapshot()
    sampler.close()
    return sampler.snapshots.scores[-1]


def test_a_file_of_another_size_is_not_grown_back(tmp_path):
    state, _ = kept(tmp_path)
    sound = resumed(tmp_path, state)
    for file in tmp_path.glob("*.npy"):
        content = file.read_bytes()
        for size in (len(content) // 4, len(content) - 8, 10, 0):
            file.write_bytes(content[:size])
            with pytest.raises(DamagedFileError, match=file.name):
                resumed(tmp_path, state)
        file.write_bytes(content + b"more")
        with pytest.raises(DamagedFileError, match="should have"):
            resumed(tmp_path, state)
        file.write_bytes(content)
    np.testing.assert_array_equal(resumed(tmp_path, state), sound)


def test_flipped_bits_are_found_or_change_nothing(tmp_path):
    state, _ = kept(tmp_path)
    sound = resumed(tmp_path, state)
    rng, alike = np.random.default_rng(0), 0
    files = sorted(tmp_path.glob("*.np[yz]"))
    for file in files:
        content = file.read_bytes()
        for k in rng.integers(0, 8 * len(content), 12):
            damaged = bytearray(content)
            damaged[k // 8] ^= 1 << k % 8
            file.write_bytes(damaged)
            try:
                found = resumed(tmp_path, state)
            except DamagedFileError as error:
                assert str(tmp_path) in str(error)
            else:  # of a place that no checkpoint needs, or a stamp
                np.testing.assert_array_equal(found, sound)
                alike += 1
            file.write_bytes(content)
    # Half of the rows, at most, and nearly all stamps.
    assert alike < 12 * (len(files) / 2 + 1)


def test_links_and_devices_in_the_folder_are_not_followed(tmp_path):
    folder, outside = tmp_path / "kept", tmp_path / "outside"
    folder.mkdir()
    outside.write_bytes(b"untouched")
    (folder / "unit-0-0.npy").symlink_to(outside)
    (folder / "steps.npy").symlink_to(outside)
    state, _ = kept(folder)
    assert outside.read_bytes() == b"untouched"
    place = folder / "unit-0-0.npy"
    place.rename(tmp_path / "moved.npy")
    before = (tmp_path / "moved.npy").read_bytes()
    place.symlink_to(tmp_path / "moved.npy")
    with pytest.raises(ValueError, match="must be a regular file"):
        resumed(folder, state)
    place.unlink()
    os.mkfifo(place)
    with pytest.raises(ValueError, match="must be a regular file"):
        resumed(folder, state)
    assert (tmp_path / "moved.npy").read_bytes() == before


def test_files_of_another_run_are_named(tmp_path):
    state, _ = kept(tmp_path / "one")
    other = sampler_of(tmp_path / "two")
    other.optimizer.param_groups[0]["lr"] = 0.5
    train(other, 9)
    other.flush()
    other.close()
    place = tmp_path / "one" / "unit-1-0.npy"
    content = place.read_bytes()
    place.write_bytes((tmp_path / "two" / "unit-1-0.npy").read_bytes())
    with pytest.raises(DamagedFileError, match=r"The gradients of \d+ examples"):
        resumed(tmp_path / "one", state)
    place.write_bytes(content)
    (place.parent / "state-000000000008.npz").write_bytes(
        (tmp_path / "two" / "state-000000000009.npz").read_bytes()
    )
    with pytest.raises(DamagedFileError, match="it is of another step"):
        resumed(tmp_path / "one", state)


def test_a_folder_without_what_is_damaged_is_gone_on_from_as_said(tmp_path):
    state, _ = kept(tmp_path / "kept")
    place = tmp_path / "kept" / "unit-1-0.npy"
    place.write_bytes(bytes(len(place.read_bytes())))
    with pytest.raises(DamagedFileError):
        resumed(tmp_path / "kept", state)
    (tmp_path / "kept").rename(tmp_path / "away")
    sampler = sampler_of(tmp_path / "kept")
    with pytest.warns(UserWarning, match="kept from now on"):
        sampler.load_state_dict(state)
    train(sampler, 4).snapshot()
    assert np.isfinite(sampler.snapshots.scores[-1]).all()


def test_a_full_disk_is_an_error_before_anything_is_mapped(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"steps\.npy` could not be written .*free some"):
        train(sampler_of(tmp_path))
    assert not list(tmp_path.glob("*.npy"))
    monkeypatch.setattr(
        os, "posix_fallocate", lambda *_: (_ for _ in ()).throw(OSError(95, "?"))
    )
    kept(tmp_path)  # a file system that does not reserve is written to


def test_a_folder_of_gradients_has_one_writer(tmp_path):
    first = train(sampler_of(tmp_path))
    with pytest.raises(BlockingIOError, match="is being written to by another run"):
        train(sampler_of(tmp_path))
    first.close()
    train(sampler_of(tmp_path)).close()


# Snapshots of a reference


def watching(folder, resume=False):
    x, y = data()
    reference, storage = [(torch.arange(N), x, y)], Storage(folder, resume=resume)
    return sampler_of(None, reference=reference, metric="cosine", storage=storage)


def moments(folder, at=(1, 2, 3)):
    sampler = watching(folder)
    held = sampler.snapshots
    for step in at:
        with torch.no_grad():
            sampler.model[0].weight.mul_(1.1)
        sampler.snapshot(step)
    sampler.close()
    assert sampler.snapshots is held
    return sampler


def test_snapshots_of_a_folder_are_those_that_were_taken(tmp_path):
    made = moments(tmp_path)
    again = watching(tmp_path, resume=True)
    assert again.snapshots.steps == [1, 2, 3]
    np.testing.assert_array_equal(again.snapshots.scores, made.snapshots.scores)
    again.close()
    (tmp_path / "trace.json").unlink()
    with pytest.raises(FileExistsError, match="must not hold snapshots already"):
        watching(tmp_path)


def test_damaged_copied_and_foreign_snapshots_are_named(tmp_path):
    moments(tmp_path / "one")
    moments(tmp_path / "two")
    folder = tmp_path / "one" / "snapshots"
    place = folder / "snapshot-000000000002.npz"
    content = place.read_bytes()
    for k in np.random.default_rng(0).integers(0, 8 * len(content), 60):
        damaged = bytearray(content)
        damaged[k // 8] ^= 1 << k % 8
        place.write_bytes(damaged)
        with pytest.raises(DamagedFileError, match="snapshot-000000000002"):
            watching(tmp_path / "one", resume=True)
    place.write_bytes((folder / "snapshot-000000000001.npz").read_bytes())
    with pytest.raises(ValueError, match="may be a copy"):
        watching(tmp_path / "one", resume=True)
    theirs = tmp_path / "two" / "snapshots" / place.name
    place.write_bytes(theirs.read_bytes())
    with pytest.raises(ValueError, match="of another run"):
        watching(tmp_path / "one", resume=True)
    place.write_bytes(content)
    (folder / "snapshot-2.npz").write_bytes(content)
    with pytest.raises(ValueError, match="must be named"):
        watching(tmp_path / "one", resume=True)


def test_a_snapshot_that_could_not_be_written_is_written_later(tmp_path, monkeypatch):
    sampler = watching(tmp_path)
    sampler.snapshot(1)
    with torch.no_grad():
        sampler.model[0].weight.mul_(1.1)

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"snapshot-000000000002\.npz"):
            sampler.snapshot(2)
    assert sampler.snapshots.steps == [1, 2]
    sampler.close()
    files = sorted((tmp_path / "snapshots").glob("*.npz"))
    assert [Snapshots.load(file).steps for file in files] == [[1], [2]]


def test_numbers_of_a_reference_that_have_no_room_are_refused(tmp_path):
    x, y = data()
    reference = [(torch.arange(N) + 2**58, x, y)]
    sampler = sampler_of(None, reference=reference, metric="cosine")
    with pytest.raises(ValueError, match="without large gaps"):
        sampler.snapshot(1)
