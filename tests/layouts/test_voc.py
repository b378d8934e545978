"""Pascal VOC: in by `from_voc`, out by `export`, with XML files that stay as they were."""

import pickle
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from prefect_pipestream.errors import DatasetError, DatasetNotFoundError, DecodeError
from prefect_pipestream.exporting import ExportError, export
from prefect_pipestream.items import JsonMetadataItem, PngImageItem
from prefect_pipestream.sequences import Sample, SamplesSequence
from tests.layouts.objects import contents, draw, files_in, imported

# As in VOC2007: a space in a value, parts, tabs, the objects last.
VOC2007 = """<annotation>
\t<folder>VOC2007</folder>
\t<filename>000001.jpg</filename>
\t<source>
\t\t<database>The VOC2007 Database</database>
\t\t<annotation>PASCAL VOC2007</annotation>
\t\t<image>flickr</image>
\t\t<flickrid>341012865</flickrid>
\t</source>
\t<owner>
\t\t<flickrid>Fried Camels</flickrid>
\t\t<name>Jinky the Fruit Bat</name>
\t</owner>
\t<size>
\t\t<width>12</width>
\t\t<height>8</height>
\t\t<depth>3</depth>
\t</size>
\t<segmented>0</segmented>
\t<object>
\t\t<name>person</name>
\t\t<pose>Left</pose>
\t\t<truncated>1</truncated>
\t\t<difficult>0</difficult>
\t\t<bndbox>
\t\t\t<xmin>1</xmin>
\t\t\t<ymin>2</ymin>
\t\t\t<xmax>12</xmax>
\t\t\t<ymax>8</ymax>
\t\t</bndbox>
\t\t<part>
\t\t\t<name>head</name>
\t\t\t<bndbox>
\t\t\t\t<xmin>3</xmin>
\t\t\t\t<ymin>3</ymin>
\t\t\t\t<xmax>5.5</xmax>
\t\t\t\t<ymax>5</ymax>
\t\t\t</bndbox>
\t\t</part>
\t\t<part>
\t\t\t<name>hand</name>
\t\t\t<bndbox>
\t\t\t\t<xmin>6</xmin>
\t\t\t\t<ymin>3</ymin>
\t\t\t\t<xmax>7</xmax>
\t\t\t\t<ymax>5</ymax>
\t\t\t</bndbox>
\t\t</part>
\t</object>
\t<object>
\t\t<name>dog</name>
\t\t<pose>Unspecified</pose>
\t\t<truncated>0</truncated>
\t\t<difficult>1</difficult>
\t\t<bndbox>
\t\t\t<xmin>4</xmin>
\t\t\t<ymin>4</ymin>
\t\t\t<xmax>4</xmax>
\t\t\t<ymax>4</ymax>
\t\t</bndbox>
\t</object>
</annotation>
"""
# As in VOC2012: names in the order of the alphabet, so objects in the middle; fractions, actions.
VOC2012 = """<annotation>
\t<filename>2011_003285.jpg</filename>
\t<folder>VOC2012</folder>
\t<object>
\t\t<name>person</name>
\t\t<actions>
\t\t\t<jumping>0</jumping>
\t\t\t<walking>1</walking>
\t\t</actions>
\t\t<bndbox>
\t\t\t<xmax>11</xmax>
\t\t\t<xmin>1.70000076293945</xmin>
\t\t\t<ymax>7.30</ymax>
\t\t\t<ymin>1</ymin>
\t\t</bndbox>
\t\t<difficult>0</difficult>
\t\t<point>
\t\t\t<x>7</x>
\t\t\t<y>0100</y>
\t\t</point>
\t</object>
\t<segmented>1</segmented>
\t<size>
\t\t<depth>3</depth>
\t\t<height>8</height>
\t\t<width>12</width>
\t</size>
</annotation>
"""
EMPTY = """<annotation verified="yes">
\t<filename>000000.jpg</filename>
\t<path>C:\\pictures\\000000.jpg</path>
\t<source />
</annotation>
"""
TEXTS = {"000001": VOC2007, "2011_003285": VOC2012, "000000": EMPTY}


def specimen(folder: Path) -> Path:
    (folder / "Annotations").mkdir(parents=True)
    for number, (stem, text) in enumerate(TEXTS.items()):
        draw(folder / f"JPEGImages/{stem}.jpg", seed=number)
        (folder / f"Annotations/{stem}.xml").write_text(text)
    for kind in ("SegmentationClass", "SegmentationObject"):
        (folder / kind).mkdir()
        mask = Image.fromarray(np.eye(8, 12, dtype=np.uint8))
        mask.putpalette(bytes(range(256)) * 3)
        mask.save(folder / kind / "2011_003285.png")
    sets = {
        "Main/train": "000001\n000000\n",
        "Main/val": "2011_003285\n",
        "Main/trainval": "000001\n000000\n2011_003285\n",
        "Segmentation/val": "2011_003285\n",
    }
    sets = {name: "".join(sorted(text.splitlines(True))) for name, text in sets.items()}
    for name, text in sets.items():
        path = folder / f"ImageSets/{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_samples_are_what_the_files_say(tmp_path):
    folder = specimen(tmp_path / "voc")
    (folder / "ImageSets/Main/person_train.txt").write_text("000001  1\n000000 -1\n")
    source = SamplesSequence.from_voc(folder)
    assert source.names == ["000000.jpg", "000001.jpg", "2011_003285.jpg"]
    _, first, second = source
    assert first["categories"]() == [{"id": 1, "name": "dog"}, {"id": 2, "name": "person"}]
    assert first["categories"].is_shared
    facts = first["metadata"]()
    assert facts["file"] == "000001.jpg"
    assert (facts["split"], facts["width"], facts["height"]) == ("train", 12, 8)
    assert facts["sets"] == ["Main/train", "Main/trainval"]
    assert facts["voc"]["owner"]["name"] == "Jinky the Fruit Bat"
    person, dog = first["annotations"]()
    assert person["label"] == "person"
    assert person["bbox"] == [0.0, 1.0, 12.0, 7.0]  # columns 1 to 12, rows 2 to 8
    assert dog["bbox"] == [3.0, 3.0, 1.0, 1.0]  # one pixel
    assert (person["truncated"], dog["difficult"]) == (1, 1)
    assert [part["name"] for part in person["part"]] == ["head", "hand"]
    assert "bndbox" not in person
    other = second["annotations"]()[0]
    assert other["bndbox"]["xmin"] == "1.70000076293945" or other["bndbox"]["xmin"] > 1.7
    assert other["bbox"][:2] == [1.70000076293945 - 1, 0.0]
    assert other["point"] == {"x": 7, "y": "0100"}
    assert second["mask"].file_sources[0].path == str(folder / "SegmentationClass/2011_003285.png")
    assert "instances" in second
    assert "mask" not in first


def test_the_export_has_the_very_files_of_the_original(tmp_path):
    folder = specimen(tmp_path / "voc")
    source = SamplesSequence.from_voc(folder, origin="x")
    samples = imported(source, tmp_path / "dataset")
    report = export(samples, "voc", tmp_path / "out")
    assert (report.samples, report.failures) == (3, {})
    was, now = files_in(folder), files_in(tmp_path / "out")
    assert {name for name in was if not name.startswith("ImageSets")} <= set(now)
    for name, content in was.items():
        assert sorted(now[name].splitlines()) == sorted(content.splitlines()), name
        assert name.startswith("ImageSets") or now[name] == content
    assert len(now) == len(was)
    assert contents(SamplesSequence.from_voc(tmp_path / "out", origin="x")) == contents(source)


def test_images_and_xml_files_side_by_side(tmp_path):
    for split in ("train", "valid"):
        draw(tmp_path / f"voc/{split}/a.png")
        (tmp_path / f"voc/{split}/a.xml").write_text(VOC2007)
    draw(tmp_path / "voc/train/none.png")
    source = SamplesSequence.from_voc(tmp_path / "voc", origin="x")
    facts = [(one["metadata"]()["file"], one["metadata"]()["split"]) for one in source]
    assert facts == [
        ("train/a.png", "train"),
        ("train/none.png", "train"),
        ("valid/a.png", "valid"),
    ]
    assert "annotations" not in source[1]
    export(source, "voc", tmp_path / "out")
    assert (tmp_path / "out/ImageSets/Main/train.txt").read_text() == "train/a\ntrain/none\n"
    assert contents(SamplesSequence.from_voc(tmp_path / "out", origin="x")) == contents(source)


def test_folders_of_other_names(tmp_path):
    folder = specimen(tmp_path / "voc")
    (folder / "Annotations").rename(folder / "xml")
    (folder / "JPEGImages").rename(tmp_path / "pictures")
    source = SamplesSequence.from_voc(folder, annotations="xml", images="../pictures")
    assert len(source[1]["annotations"]()) == 2
    with pytest.raises(DatasetNotFoundError, match="there is no folder"):
        SamplesSequence.from_voc(folder, annotations="none")


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("Annotations", "as `annotations`"),
        ("JPEGImages", "as `images`"),
        ("SegmentationClass", "put a folder in place"),
        ("ImageSets", "put a folder in place"),
    ],
)
def test_a_linked_folder_is_not_a_way_out(tmp_path, name, way):
    folder = specimen(tmp_path / "voc")
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DecodeError, match=f"{name}: leads out of .* by a link.*{way}"):
        SamplesSequence.from_voc(folder)[0]


def test_linked_folders_that_are_named_are_read(tmp_path):
    folder = specimen(tmp_path / "voc")
    for name in ("Annotations", "JPEGImages"):
        (folder / name).rename(tmp_path / name)
        (folder / name).symlink_to(tmp_path / name)
    source = SamplesSequence.from_voc(folder, annotations="Annotations", images="JPEGImages")
    assert len(source[1]["annotations"]()) == 2
    assert source[1]["image"]().shape == (8, 12, 3)


def test_classes_that_are_given_have_their_numbers(tmp_path):
    folder = specimen(tmp_path / "voc")
    source = SamplesSequence.from_voc(folder, classes=["person", "cat"])
    assert source[2]["categories"]() == [{"id": 1, "name": "person"}, {"id": 2, "name": "cat"}]
    assert source[2]["annotations"]()[0]["category_id"] == 1
    with pytest.raises(DecodeError, match=r"000001\.xml: the class 'dog' is none of `classes`"):
        source[1]
    report = export(source, "voc", tmp_path / "out", max_failed=0.5)
    assert (report.samples, list(report.failures)) == (2, [1])
    assert (tmp_path / "out/Annotations/2011_003285.xml").read_text() == VOC2012


@pytest.mark.parametrize("classes", [["person"], []])
def test_a_class_that_only_the_dataset_knows_is_not_one_of_those_given(tmp_path, classes):
    folder = specimen(tmp_path / "voc")
    source = SamplesSequence.from_voc(folder, classes=classes).knowing({"dog": 3})
    assert source.categories[0] == {"id": 3, "name": "dog"}
    assert [one["name"] for one in source.categories[1:]] == classes
    with pytest.raises(DecodeError, match=r"the class '(dog|person)' is none of `classes`"):
        source[1]


def test_a_class_and_a_box_are_changed_by_the_item(tmp_path):
    source = SamplesSequence.from_voc(specimen(tmp_path / "voc"))
    sample = source[2]
    entry = sample["annotations"]()[0]
    entry |= {"label": "horse", "bbox": [1.0, 2.0, 3.5, 4.0]}
    changed = sample.set_value("annotations", [entry])
    changed = changed.deep_set("metadata.split", "train")
    export(SamplesSequence.from_list([changed]), "voc", tmp_path / "out")
    root = ET.parse(tmp_path / "out/Annotations/2011_003285.xml").getroot()
    assert root.findtext("object/name") == "horse"
    box = {one.tag: one.text for one in root.findall("object/bndbox/*")[:4]}
    assert box == {"xmin": "2", "ymin": "3", "xmax": "4.5", "ymax": "6"}
    assert root.findtext("object/actions/walking") == "1"
    assert [path.name for path in (tmp_path / "out/ImageSets/Main").iterdir()] == ["train.txt"]


def test_polygons_are_segmentations(tmp_path):
    polygon = "<polygon><x1>2</x1><y1>1</y1><x2>5</x2><y2>1.5</y2><x3>5</x3><y3>6</y3></polygon>"
    text = VOC2007.replace("<pose>Left</pose>", polygon).replace(
        "<pose>Unspecified</pose>", polygon.replace("1.5", "1.50") + polygon
    )
    draw(tmp_path / "voc/a.png")
    (tmp_path / "voc/a.xml").write_text(text)
    source = SamplesSequence.from_voc(tmp_path / "voc", origin="x")
    one, two = source[0]["annotations"]()
    assert one["segmentation"] == [[1.0, 0.0, 4.0, 0.5, 4.0, 5.0]]
    assert two["segmentation"] == one["segmentation"] * 2
    assert ("polygon" in one, "polygon" in two) == (False, True)
    export(source, "voc", tmp_path / "out")
    assert contents(SamplesSequence.from_voc(tmp_path / "out", origin="x")) == contents(source)
    written = (tmp_path / "out/Annotations/a.xml").read_text()
    assert ET.canonicalize(written, strip_text=True) == ET.canonicalize(text, strip_text=True)


def test_samples_of_another_layout(tmp_path):
    pixels = np.zeros((8, 12, 3), np.uint8)
    objects = [
        {
            "category_id": 3,
            "bbox": [0, 1, 12, 0.25],
            "segmentation": [[1.0, 0.0, 4.0, 0.5, 4.0, 5.0]],
            "score": 0.5,
            "flags": [True, None],
            "iscrowd": 0,
        }
    ]
    sample = Sample(
        {
            "image": PngImageItem(pixels),
            "annotations": JsonMetadataItem(objects),
            "categories": JsonMetadataItem([{"id": 3, "name": "a <b>"}], shared=True),
            "metadata": JsonMetadataItem({"file": "val/x/1.jpg", "split": "val"}),
        }
    )
    export(SamplesSequence.from_list([sample, sample]), "voc", tmp_path / "out")
    assert set(files_in(tmp_path / "out")) == {
        "Annotations/x/1.xml",
        "Annotations/x/1-1.xml",
        "JPEGImages/x/1.png",
        "JPEGImages/x/1-1.png",
        "ImageSets/Main/val.txt",
    }
    again = SamplesSequence.from_voc(tmp_path / "out")[1]
    entry = again["annotations"]()[0]
    assert entry["label"] == "a <b>"
    assert entry["bbox"] == [0.0, 1.0, 12.0, 1.0]
    assert entry["segmentation"] == objects[0]["segmentation"]
    assert (entry["score"], entry["flags"], entry["iscrowd"]) == (0.5, "[true, null]", 0)
    facts = again["metadata"]()
    assert facts["voc"]["size"] == {"width": 12, "height": 8, "depth": 3}


def test_a_source_is_pickled_without_what_it_has_read(tmp_path):
    source = SamplesSequence.from_voc(specimen(tmp_path / "voc"))
    before = len(pickle.dumps(source))
    was = contents(source)
    assert len(pickle.dumps(source)) == before
    assert contents(pickle.loads(pickle.dumps(source))) == was


# -- bad input -----------------------------------------------------------------------------

BOMB = """<?xml version="1.0"?><!DOCTYPE annotation [<!ENTITY a "aaaaaaaaaa">%s]>
<annotation><filename>&%s;</filename></annotation>"""
ENTITIES = "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(12))

BAD = {
    "broken": (VOC2007[:-20], "malformed XML.*line"),
    "empty": ("", "malformed XML"),
    "bytes": (b"\xff\xfe\x00", "malformed XML"),
    "an encoding": ('<?xml version="1.0" encoding="x-none"?><annotation/>', "XML"),
    "an entity bomb": (BOMB % (ENTITIES, "m"), "document type"),
    "a file": (
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
        "document type",
    ),
    "deep": ("<annotation>" + "<a>" * 5000 + "</a>" * 5000 + "</annotation>", "nested"),
    "other": ("<html></html>", "`html`, expected `annotation`"),
    "no class": (VOC2007.replace("<name>dog</name>", ""), "object 2: it has no `name`"),
    "an empty class": (VOC2007.replace("<name>dog</name>", "<name/>"), "object 2: its `name`"),
    "no box": (VOC2007.replace("bndbox", "box"), "object 1: it has no box"),
    "no corner": (VOC2007.replace("<xmax>4</xmax>", ""), "object 2: its `bndbox`"),
    "NaN": (VOC2007.replace("<xmax>4</xmax>", "<xmax>nan</xmax>"), "object 2: its `bndbox`"),
    "huge": (VOC2007.replace("<xmax>4</xmax>", f"<xmax>{'9' * 400}</xmax>"), "object 2"),
    "endless": (VOC2007.replace("<xmax>4</xmax>", f"<xmax>{'9' * 9000}</xmax>"), "object 2"),
    "text": (VOC2007.replace("<xmax>4</xmax>", "<xmax>x</xmax>"), "object 2: its `bndbox`"),
    "twice": (VOC2007.replace("<xmax>4</xmax>", "<xmax>4</xmax><xmax>5</xmax>"), "object 2"),
    "a field of ours": (VOC2007.replace("pose>", "label>"), "object 1.*`label`"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_a_bad_file_is_an_error_of_its_sample_alone(tmp_path, case):
    text, message = BAD[case]
    folder = specimen(tmp_path / "voc")
    path = folder / "Annotations/000001.xml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    source = SamplesSequence.from_voc(folder)
    with pytest.raises(DecodeError, match=rf"000001\.xml: .*{message}"):
        source[1]
    assert source[2]["annotations"]()[0]["label"] == "person"
    assert source[0]["annotations"]() == []


def test_a_box_outside_of_its_image_stays_as_it_is(tmp_path):
    folder = specimen(tmp_path / "voc")
    path = folder / "Annotations/000001.xml"
    text = VOC2007.replace("<xmin>4</xmin>", "<xmin>-400</xmin>")
    text = text.replace("<xmin>1</xmin>", "<xmin>13</xmin>")  # beyond xmax: the corners change
    path.write_text(text)
    source = SamplesSequence.from_voc(folder)
    assert [one["bbox"] for one in source[1]["annotations"]()] == [
        [11.0, 1.0, 2.0, 7.0],
        [-401.0, 3.0, 405.0, 1.0],
    ]
    export(source, "voc", tmp_path / "out")
    assert (tmp_path / "out/Annotations/000001.xml").read_text() == text


def test_a_missing_image_and_one_too_many(tmp_path):
    folder = specimen(tmp_path / "voc")
    (folder / "JPEGImages/000000.jpg").unlink()
    draw(folder / "JPEGImages/000001.png")
    source = SamplesSequence.from_voc(folder)
    assert list(source.names) == ["000000.xml", "000001.jpg", "000001.png", "2011_003285.jpg"]
    with pytest.raises(DecodeError, match=r"000000\.xml: there is no image 000000\.\* in"):
        source[0]
    for idx in (1, 2):
        with pytest.raises(DecodeError, match=r"is it of 000001\.jpg or 000001\.png"):
            source[idx]
    assert source[3]["image"]().shape == (8, 12, 3)


def test_a_file_name_in_the_xml_leads_nowhere(tmp_path):
    folder = specimen(tmp_path / "voc")
    path = folder / "Annotations/000001.xml"
    path.write_text(VOC2007.replace("000001.jpg", "../../../etc/passwd"))
    source = SamplesSequence.from_voc(folder)
    assert source[1]["image"].file_sources[0].path == str(folder / "JPEGImages/000001.jpg")
    export(source, "voc", tmp_path / "out")
    assert (tmp_path / "out/JPEGImages/000001.jpg").is_file()


def test_sets_that_name_what_is_not_there(tmp_path):
    folder = specimen(tmp_path / "voc")
    (folder / "ImageSets/Main/val.txt").write_text("../x\n2011_003285\n")
    source = SamplesSequence.from_voc(folder)
    with pytest.warns(UserWarning, match=r"1 names .* The first: Main/val\.txt: \.\./x"):
        assert source[2]["metadata"]()["split"] == "val"
    (folder / "ImageSets/Main/val.txt").write_bytes(b"\xff\xff")
    with pytest.raises(DecodeError, match=r"val\.txt: is no text"):
        SamplesSequence.from_voc(folder)[0]


def test_what_is_not_there(tmp_path):
    with pytest.raises(DatasetNotFoundError):
        SamplesSequence.from_voc(tmp_path / "none")
    with pytest.raises(DatasetError, match="there is no XML file"):
        len(SamplesSequence.from_voc(tmp_path))


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ({"annotations": [{"label": "a"}]}, "object 1: its bbox is None"),
        ({"annotations": [{"bbox": [1, 2, 3, 4]}]}, "object 1: it has no `label`"),
        ({"annotations": [{"label": "a\0", "bbox": [1, 2, 3, 4]}]}, "characters that XML"),
        ({"annotations": [{"label": "a", "bbox": [1, 2, 3, 4], "a b": 1}]}, "'a b' cannot be"),
        ({"annotations": [{"label": "a", "bbox": [1, 2, 3, "4"]}]}, "bbox"),
        ({"annotations": [], "metadata": {"sets": ["../x"]}}, "`sets` has"),
        ({"annotations": [], "metadata": {"split": "a/b"}}, "`split`"),
    ],
)
def test_what_cannot_be_exported(tmp_path, items, message):
    data = {key: JsonMetadataItem(value) for key, value in items.items()}
    sample = Sample({"image": PngImageItem(np.zeros((4, 4), np.uint8)), **data})
    with pytest.raises(ExportError, match=message):
        export(SamplesSequence.from_list([sample]), "voc", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_odd_is_written_as_text(tmp_path):
    entry = {"label": "a", "bbox": [1, 2, 3, 4], "segmentation": [["x", 1]], "bndbox": 3}
    sample = Sample(
        {
            "image": PngImageItem(np.zeros((4, 4), np.uint8)),
            "annotations": JsonMetadataItem([entry]),
            "metadata": JsonMetadataItem({"voc": 3, "sets": 4}),
        }
    )
    export(SamplesSequence.from_list([sample]), "voc", tmp_path / "out")
    again = SamplesSequence.from_voc(tmp_path / "out")[0]["annotations"]()[0]
    assert again == {"label": "a", "bbox": [1.0, 2.0, 3.0, 4.0], "segmentation": '[["x", 1]]'}


# -- round trips -----------------------------------------------------------------------------

texts = st.text(
    st.characters(codec="utf-8", exclude_characters="\r", exclude_categories=["Cc", "Cs", "Cn"]),
    max_size=6,
).filter(lambda text: all(ord(char) < 0xFFFE or ord(char) > 0xFFFF for char in text))
values = texts | st.integers().map(str) | st.floats().map(str) | st.just("007") | st.just("1e3")
tags = st.sampled_from(["pose", "truncated", "parts", "a-b", "é".encode().hex(), "X.y"])
trees = st.recursive(
    values,
    lambda inner: st.lists(st.tuples(tags, inner), max_size=3),
    max_leaves=6,
)
corners = st.lists(
    st.integers(-9, 99).map(str) | st.floats(-9, 99).map(str), min_size=4, max_size=4
)


def build(parent: ET.Element, tag: str, tree: Any) -> None:
    element = ET.SubElement(parent, tag)
    if isinstance(tree, str):
        element.text = tree
    else:
        for name, inner in tree:
            build(element, name, inner)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    image=st.dictionaries(tags, trees, max_size=3),
    objects=st.lists(
        st.tuples(texts.map(str.strip).filter(bool), corners, st.dictionaries(tags, trees)),
        max_size=3,
    ),
    are_last=st.booleans(),
)
def test_round_trips_lose_nothing(tmp_path_factory, image, objects, are_last):
    folder = tmp_path_factory.mktemp("voc")
    root = ET.Element("annotation")
    if are_last:
        for tag, tree in image.items():
            build(root, tag, tree)
    for name, box, fields in objects:
        element = ET.SubElement(root, "object")
        build(element, "name", name)
        build(element, "bndbox", list(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)))
        for tag, tree in fields.items():
            build(element, tag, tree)
    if not are_last:
        for tag, tree in image.items():
            build(root, tag, tree)
    draw(folder / "voc/a.png")
    ET.ElementTree(root).write(folder / "voc/a.xml", encoding="utf-8")
    source = SamplesSequence.from_voc(folder / "voc", origin="x")
    export(imported(source, folder / "dataset"), "voc", folder / "out")
    assert contents(SamplesSequence.from_voc(folder / "out", origin="x")) == contents(source)
