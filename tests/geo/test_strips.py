from __future__ import annotations

import numpy as np
import pytest

from segearth.errors import OutputError
from segearth.geo.strips import StripStore, parts_folder

SETTINGS = {"source": "scene.tif", "questions": ["roofs", "roads"], "tile_size": (512, 512)}


def strip(rows, value):
    return np.full((2, rows, 5), value, np.float32)


def test_strips_come_back_in_rows_and_after_a_restart(tmp_path):
    folder = parts_folder(tmp_path / "out.tif")
    assert folder.name == "out.tif.parts"
    with StripStore(folder, SETTINGS) as store:
        assert store.finished_rows == 0 and store.strips == ()
        store.put(strip(4, 1), {"presence": [0.25, 0.5]})
        store.put(strip(3, 2))
    with StripStore(folder, SETTINGS) as store:
        assert store.finished_rows == 7
        assert [(s.top, s.bottom, s.facts) for s in store.strips] == [(0, 4, {"presence": [0.25, 0.5]}), (4, 7, {})]
        store.put(strip(1, 3))
        assert store.rows(0, 8)[1, :, 0].tolist() == [1] * 4 + [2] * 3 + [3]
        assert store.rows(3, 5)[0, :, 4].tolist() == [1, 2] and store.rows(5, 6).shape == (2, 1, 5)
        for top, bottom in ((0, 9), (3, 3), (-1, 2)):
            with pytest.raises(OutputError, match="go on first"):
                store.rows(top, bottom)
        store.remove()
    assert not folder.exists()


def test_what_was_cut_off_is_done_again(tmp_path):
    with StripStore(tmp_path / "parts", SETTINGS) as store:
        for value in range(4):
            store.put(strip(2, value))
    second = tmp_path / "parts" / "rows_00000002_00000004.npy"
    second.write_bytes(second.read_bytes()[:-4])
    (tmp_path / "parts" / ".rows_x.npy").touch()
    with StripStore(tmp_path / "parts", SETTINGS) as store:
        assert store.finished_rows == 2
        store.put(strip(2, 7))
        assert store.rows(0, 4)[0, :, 0].tolist() == [0, 0, 7, 7]
    assert sorted(path.name for path in (tmp_path / "parts").glob("*.npy")) == [
        "rows_00000000_00000002.npy", "rows_00000002_00000004.npy",
    ]  # fmt: skip


def test_a_strip_without_its_facts_does_not_count(tmp_path):
    with StripStore(tmp_path / "parts", SETTINGS) as store:
        store.put(strip(2, 1))
    (tmp_path / "parts" / "rows_00000000_00000002.json").unlink()
    with StripStore(tmp_path / "parts", SETTINGS) as store:
        assert store.finished_rows == 0


@pytest.mark.parametrize("name", ["rows_00000000_00000002.json", "settings.json"])
@pytest.mark.parametrize("left", [b"", b"\0\0", b'{"presence": [0.'])
def test_facts_and_settings_that_a_loss_of_power_cut_off_do_not_count(tmp_path, name, left):
    with StripStore(tmp_path / "parts", SETTINGS) as store:
        store.put(strip(2, 1), {"presence": [0.5]})
    (tmp_path / "parts" / name).write_bytes(left)
    with StripStore(tmp_path / "parts", SETTINGS) as store:
        assert store.finished_rows == 0
        store.put(strip(2, 2))
    with StripStore(tmp_path / "parts", SETTINGS) as store:
        assert store.finished_rows == 2


def test_other_settings_are_refused_unless_begun_anew(tmp_path):
    with StripStore(tmp_path / "parts", SETTINGS) as store:
        store.put(strip(2, 1))
    other = {**SETTINGS, "tile_size": (256, 256), "overlap": 8}
    with pytest.raises(OutputError, match=r"overlap = None, now it is 8 and 1 more.*delete the folder, or pass --rest"):
        StripStore(tmp_path / "parts", other)
    with StripStore(tmp_path / "parts", other, restart=True) as store:
        assert store.finished_rows == 0
    StripStore(tmp_path / "parts", other).close()


def test_a_folder_without_a_strip_does_not_stay(tmp_path):
    with pytest.raises(ValueError), StripStore(tmp_path / "parts", SETTINGS):
        raise ValueError("before the first tile was answered")
    assert not (tmp_path / "parts").exists()
    StripStore(tmp_path / "parts", {**SETTINGS, "overlap": 8}).close()  # its settings are not in the way


def test_one_process_at_a_time(tmp_path):
    with StripStore(tmp_path / "parts", SETTINGS), pytest.raises(OutputError, match="another process"):
        StripStore(tmp_path / "parts", SETTINGS)
    StripStore(tmp_path / "parts", SETTINGS).close()


def test_folders_that_do_not_do(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        StripStore(tmp_path / "file", SETTINGS)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").touch()
    with pytest.raises(OutputError, match="other files"):
        StripStore(tmp_path / "full", SETTINGS, restart=True)
    assert (tmp_path / "full" / "thesis.doc").exists()


def test_nothing_is_left_of_a_strip_that_could_not_be_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with StripStore(tmp_path / "parts", SETTINGS) as store:
        monkeypatch.setattr(np, "save", full)
        with pytest.raises(OutputError, match="free some space"):
            store.put(strip(2, 1))
        assert store.finished_rows == 0 and not list((tmp_path / "parts").glob("*.npy"))
