"""COCO and VOC through the flows: what changed comes again, classes keep their numbers."""

import json
import shutil

import pytest

from prefect_pipestream.flows import export_dataset, import_dataset
from prefect_pipestream.sequences import SamplesSequence
from prefect_pipestream.underfolder import check
from prefect_pipestream.underfolder.opening import open_dataset
from tests.layouts import test_coco, test_voc
from tests.layouts.objects import draw, files_in

pytestmark = pytest.mark.usefixtures("prefect_api")


def test_an_entry_that_changed_comes_again_alone(tmp_path, new_place):
    path = test_coco.specimen(tmp_path / "coco", count=3)
    assert import_dataset("coco", tmp_path / "coco", new_place).counts["written"] == 3
    content = json.loads(path.read_text())
    draw(tmp_path / "coco/val2017/0.jpg")
    content["images"].insert(0, {"id": 1, "file_name": "0.jpg"})
    test_coco.objects_at(content, 14)[0]["bbox"][0] += 1
    path.write_text(json.dumps(content))

    again = import_dataset("coco", tmp_path / "coco", new_place)

    assert again.counts["written"] == 2  # the new one, and the one that changed
    files = [open_dataset(new_place).read(idx)["metadata"]()["file"] for idx in range(4)]
    assert files[0] == "val2017/000000000001.jpg"
    assert files[3] == "val2017/0.jpg"
    assert not check(new_place).problems
    export_dataset(new_place, "coco", tmp_path / "out")
    exported = tmp_path / "out/annotations/instances_val2017.json"
    assert test_coco.by_id(exported) == test_coco.by_id(path)


def test_one_bad_entry_fails_and_the_others_come_in(tmp_path, new_place):
    path = test_coco.specimen(tmp_path / "coco", count=4)
    test_coco.changed(path, lambda c: test_coco.images_at(c, 14).update(file_name="/etc/passwd"))
    report = import_dataset("coco", path, new_place, max_failed=0.5)
    assert (report.counts["written"], report.counts["failed"]) == (3, 1)


def test_a_new_class_of_voc_gets_the_next_number(tmp_path, new_place):
    folder = test_voc.specimen(tmp_path / "voc")
    import_dataset("voc", folder, new_place)
    export_dataset(new_place, "voc", tmp_path / "out")
    assert files_in(tmp_path / "out") == files_in(folder)

    shutil.copy(folder / "JPEGImages/000001.jpg", folder / "JPEGImages/a.jpg")
    (folder / "Annotations/a.xml").write_text(test_voc.VOC2007.replace("dog", "aardvark"))
    assert import_dataset("voc", folder, new_place).counts["written"] == 1

    sample = SamplesSequence.from_underfolder(new_place)[3]
    assert sample["categories"]() == [
        {"id": 1, "name": "dog"},
        {"id": 2, "name": "person"},
        {"id": 3, "name": "aardvark"},
    ]
    assert [one["label"] for one in sample["annotations"]()] == ["person", "aardvark"]
