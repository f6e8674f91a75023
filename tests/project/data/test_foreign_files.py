"""Text and image files as people bring them, one row per form: what is read of it, or what the error or the log says."""

from __future__ import annotations

import io
import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image, ImageCms

from arclight.errors import InputError
from project.data.conll_files import ConllFiles
from project.data.image_folder import ImageFolder

Rows = Sequence[Sequence[tuple[str, str]]]

MIRA = [("Mira", "B-PER"), ("Quill", "I-PER"), ("saw", "O"), ("Osno", "B-LOC")]
WET = [("wet", "O"), ("stone", "O"), ("of", "O"), ("Fenwald", "B-ORG")]
NAMED = [MIRA, WET, [("no", "O"), ("one", "O"), ("near", "O"), ("Talvik", "B-LOC")]] * 2
LONE = (("SHY", "\xad"), ("ZWSP", "\u200b"), ("NBSP", "\xa0"), ("BEL", "\x07"), ("NUL", "\x00"), ("BOM", "\ufeff"))


def prepare_and_load(data: ConllFiles | ImageFolder, *parts: str) -> None:
    data.prepare_data()
    for part in parts:
        data.setup(part)


def columns(sentences: Rows, separator: str = " ", *, end: str = "\n", blank: str = "", last: bool = True) -> str:
    """Returns sentences as a column file."""
    text = f"{end}{blank}{end}".join(end.join(separator.join(row) for row in sentence) for sentence in sentences)
    return text + end if last else text


def tags(change: Callable[[str], str], sentences: Rows = NAMED) -> Rows:
    """Returns the sentences with other tags."""
    return [[(word, change(tag)) for word, tag in sentence] for sentence in sentences]


def in_scheme(letters: str) -> Rows:
    """Returns the sentences with these letters for entities of one word, for beginning, middle and end."""
    changed = []
    for sentence in NAMED:
        following = [tag for _, tag in sentence[1:]] + ["O"]
        row = []
        for (word, tag), after in zip(sentence, following, strict=True):
            place = 2 * (tag[0] == "I") + after.startswith("I")  # alone, begins, ends, continues
            row.append((word, tag if tag == "O" else f"{letters[[0, 1, 3, 2][place]]}-{tag[2:]}"))
        changed.append(row)
    return changed


class Text(NamedTuple):
    """A form of text files: all three splits hold `content`, unless others are given."""

    content: str | bytes
    settings: Mapping[str, Any] = MappingProxyType({})
    read: Rows | None = NAMED  # None: an error
    message: str = ""  # in the error, or in the log
    valid: str | bytes | None = None
    test: str | bytes | None = None


PLAIN = columns(NAMED)
TEXTS = {
    "one space": Text(PLAIN),
    "byte order mark and CRLF": Text(columns(NAMED, end="\r\n").encode("utf-8-sig")),
    "CR alone": Text(columns(NAMED, end="\r")),
    "no line feed at the end": Text(columns(NAMED, last=False)),
    "blank lines of spaces and tabs": Text(columns(NAMED, blank=" \t ")),
    "blank lines of no-break spaces": Text(columns(NAMED, blank="\xa0")),
    "blank lines of separators": Text(columns(NAMED, "\t", blank="\t")),
    "blank lines of separators that are set": Text(columns(NAMED, "\t", blank="\t"), {"separator": "\\t"}),
    "tabs around words with spaces": Text(
        columns([*NAMED, [("Old Talvik Town", "B-LOC")]], "\t"), read=[*NAMED, [("Old Talvik Town", "B-LOC")]]
    ),
    "spaces in words between spaces": Text(
        columns([*NAMED, [("New York", "B-LOC")]]),
        read=None,
        message="differ in their number of columns: 2 in most, 3 in line 31",
    ),
    "CSV quotes": Text(
        columns([*NAMED, [('","', "O"), ('"a ""b"""', "O"), ('"Osno, East"', "B-LOC")]], ","),
        {"separator": ","},
        [*NAMED, [(",", "O"), ('a "b"', "O"), ("Osno, East", "B-LOC")]],
    ),
    "CSV without the setting": Text(columns(NAMED, ","), read=None, message="set \"data.separator=','\""),
    "CSV with a header": Text("word,tag\n" + columns(NAMED, ","), {"separator": ","}),
    "comments": Text("".join(f"# id {columns([one])}\n".replace("id ", "id 7\n") for one in NAMED), {"comment": "#"}),
    "comments that end in a tag": Text(
        "".join(f"# text = vitamin O\n{columns([one])}\n" for one in NAMED), read=None, message="set \"data.comment='#'\""
    ),
    "GermEval": Text(
        "".join(
            "#\thttp://x.test\t[2020]\n" + "".join(f"{n}\t{w}\t{t}\tO\n" for n, (w, t) in enumerate(one, 1)) + "\n"
            for one in NAMED
        ),
        {"separator": "\\t", "word_column": 1, "tag_column": 2, "comment": "#"},
    ),
    "document marks on top of sentences": Text("".join(f"-DOCSTART- -DOCSTART- O\n{columns([one])}\n" for one in NAMED)),
    "swapped columns": Text(
        "".join("".join(f"{tag} {word}\n" for word, tag in one) + "\n" for one in NAMED),
        read=None,
        message="is data.tag_column right?",
    ),
    "swapped columns that are set": Text(
        "".join("".join(f"{tag} {word}\n" for word, tag in one) + "\n" for one in NAMED), {"word_column": 1, "tag_column": 0}
    ),
    "JSON lines": Text(
        "".join(f'{{"tokens": {[w for w, _ in one]}, "ner_tags": {[t for _, t in one]}}}\n'.replace("'", '"') for one in NAMED)
    ),
    **{f"scheme {letters}": Text(columns(in_scheme(letters))) for letters in ("SBIE", "UBIL", "SBME", "WBME")},
    "IO": Text(columns(tags(lambda tag: tag.replace("B-", "I-")))),
    "suffixes": Text(columns(tags(lambda tag: "-".join(tag.split("-")[::-1]))), message="spelled as in PER-B"),
    "underscores": Text(columns(tags(lambda tag: tag.replace("-", "_"))), message="spelled as in B_PER"),
    "bare types": Text(columns(tags(lambda tag: tag.split("-")[-1])), message="tags have no prefix"),
    "lower case": Text(
        columns(tags(str.lower)), read=tags(lambda tag: tag[:2] + tag[2:].lower()), message="the tag o is read as O"
    ),
    "zero": Text(columns(tags(lambda tag: tag.replace("O", "0") if tag == "O" else tag)), message="the tag 0 is read as O"),
    "dash": Text(columns(tags(lambda tag: "_" if tag == "O" else tag)), message="the tag _ is read as O"),
    "I-O": Text(
        columns([*NAMED, [("first", "I-O"), ("ended", "O")]]),
        read=[*NAMED, [("first", "O"), ("ended", "O")]],
        message="the tag I-O is read as O",
    ),
    "invisible characters in tags": Text(
        columns(tags(lambda tag: tag + "\xa0" if tag == "B-PER" else tag)), message=r"left out of the tags B-PER\u00a0"
    ),
    "types of odd characters": Text(
        columns(tags(lambda tag: tag.replace("PER", "<b>Ö.&\"'-x"))), read=tags(lambda tag: tag.replace("PER", "<b>Ö.&\"'-x"))
    ),
    "types in other case elsewhere": Text(
        PLAIN,
        read=None,
        message="types do not occur in training, which has LOC, ORG, PER: Per (2",
        valid=PLAIN.replace("PER", "Per"),
    ),
    "types that only the test has": Text(
        PLAIN, read=None, message="EVT (1, first at ", test=PLAIN + "\nVex B-EVT\n\nBlip B-PRD\n"
    ),
    "no blank lines": Text(
        "".join(columns([one]) for one in NAMED * 30), read=None, message="one sentence of 720 words. Are the blank lines"
    ),
    "latin-1": Text(columns([*NAMED, [("Mühlgrün", "B-LOC")]]).encode("latin-1"), read=None, message="set data.encoding"),
    "latin-1 that is set": Text(
        columns([*NAMED, [("Mühlgrün", "B-LOC")]]).encode("latin-1"), {"encoding": "latin-1"}, [*NAMED, [("Mühlgrün", "B-LOC")]]
    ),
    "UTF-16": Text(PLAIN.encode("utf-16"), read=None, message="such as data.encoding=utf-16"),
    "UTF-16 that is set": Text(PLAIN.encode("utf-16"), {"encoding": "utf-16"}),
    "no entity in training": Text(
        columns(tags(lambda tag: "O")), read=None, message="holds no entity, every tag is O; is data.tag_column right?"
    ),
    "no entity in validation": Text(PLAIN, message="the val split holds no entity", valid=columns(tags(lambda tag: "O"))),
    "empty validation": Text(PLAIN, read=None, message="valid.txt: holds no sentence", valid=b""),
    "one sentence of validation": Text(PLAIN, valid=columns([MIRA])),
    "a sentence longer than max_length": Text(
        columns([*NAMED, [("w", "O")] * 300]),
        read=[*NAMED, [("w", "O")] * 300],
        message="train.txt are beyond data.max_length=256",
    ),
    "marks as words": Text(
        columns([*NAMED, [(mark, "O") for mark in '#"|-'] + [("--", "O")]]),
        read=[*NAMED, [(mark, "O") for mark in '#"|-'] + [("--", "O")]],
    ),
    "a word of 9,000 letters": Text(columns([*NAMED, [("x" * 9000, "O")]]), read=[*NAMED, [("x" * 9000, "O")]]),
    "scripts and combining letters": Text(
        columns([*NAMED, [("Cafe\u0301", "B-ORG"), ("👨\u200d👩", "O"), ("東京", "B-LOC"), ("مدينة", "O")]]),
        read=[*NAMED, [("Cafe\u0301", "B-ORG"), ("👨\u200d👩", "O"), ("東京", "B-LOC"), ("مدينة", "O")]],
    ),
    "no-break spaces inside words": Text(
        columns([*NAMED, [("100\xa0km", "O"), ("Osno\xa0West", "B-LOC")]]),
        read=[*NAMED, [("100\xa0km", "O"), ("Osno\xa0West", "B-LOC")]],
    ),
    **{
        f"{name} as a word": Text(
            columns([*NAMED, [(mark, "B-PER"), ("Zorb", "O")]]),
            read=[*NAMED, [(mark, "B-PER"), ("Zorb", "O")]],
            message="have only characters that the tokenizer drops",
        )
        for name, mark in LONE
    },
}


@pytest.mark.parametrize("form", TEXTS.values(), ids=list(TEXTS))
def test_text(form: Text, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, content in (("train", form.content), ("valid", form.valid), ("test", form.test)):
        content = form.content if content is None else content
        (tmp_path / f"{name}.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    data = ConllFiles(str(tmp_path), vocab_size=120, **form.settings)
    if form.read is None:
        with pytest.raises(InputError) as raised:
            data.prepare_data()
        assert form.message in str(raised.value)
        return
    prepare_and_load(data, "fit", "test")
    expected = [(tuple(word for word, _ in one), tuple(tag for _, tag in one)) for one in form.read]
    assert [(one.words, one.tags) for one in data.sentences("train")] == expected
    assert form.message in caplog.text


# Images: each maker writes a directory; `sizes` are those of train, validation and test, `message` is in the error or the log.


def picture(label: str, number: int) -> Image.Image:
    """Returns 20 x 20 pixels that differ for each class and number; the background is light."""
    pixels = np.full((20, 20, 3), 200, np.uint8)
    pixels[3 : 5 + number % 12, 4 : 10 + ord(label[0]) % 7] = (10 + number, 5 * (number % 9), ord(label[-1]) % 100)
    return Image.fromarray(pixels)


def encoded(form: str, **options: Any) -> Callable[[Image.Image], bytes]:
    def encode(image: Image.Image) -> bytes:
        file = io.BytesIO()
        image.save(file, form, **options)
        return file.getvalue()

    return encode


PNG = encoded("PNG")


def fill(
    root: Path,
    classes: Sequence[str] = ("a", "b"),
    number: int = 10,
    *,
    first: int = 0,
    suffix: str = ".png",
    change: Callable[[Image.Image], Image.Image] = lambda image: image,
    encode: Callable[[Image.Image], bytes] = PNG,
) -> None:
    """Writes images of each class."""
    for label in classes:
        (root / label).mkdir(parents=True, exist_ok=True)
        for row in range(first, first + number):
            (root / label / f"{row:03}{suffix}").write_bytes(encode(change(picture(label, row))))


def deep(factor: int) -> Callable[[Image.Image], Image.Image]:
    return lambda image: Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * factor)


def in_splits(*names: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        for number, name in enumerate(names):
            fill(root / name, number=10 if not number else 3, first=20 * number)

    return make


def also(path: str, content: bytes = b"") -> Callable[[Path], None]:
    """Returns a maker of 10 images in each of two classes, and one more file."""

    def make(root: Path) -> None:
        fill(root)
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)

    return make


def left_by_tools(root: Path) -> None:
    fill(root)
    for place in ("a/.ipynb_checkpoints", "a/.thumbnails", "b/@eaDir", "__MACOSX/a"):
        (root / place).mkdir(parents=True)
        (root / place / "copy.png").write_bytes((root / "a" / "000.png").read_bytes())


def with_links(root: Path) -> None:
    fill(root.parent / "elsewhere")
    root.mkdir()
    for label in "ab":
        (root / label).symlink_to(root.parent / "elsewhere" / label)
    (root / "a" / "gone.png").symlink_to("/nowhere/x.png")


def truncated(root: Path) -> None:
    fill(root, suffix=".jpg", encode=encoded("JPEG"))
    for path in [root / "a" / "001.jpg", root / "b" / "003.jpg"]:
        path.write_bytes(path.read_bytes()[:-200])


def composed_and_decomposed(root: Path) -> None:
    fill(root / "train", (unicodedata.normalize("NFC", "café"), "b"))
    fill(root / "val", (unicodedata.normalize("NFD", "café"), "b"), 3, first=20)


def not_utf8(root: Path) -> None:
    fill(root)
    os.rename(os.fsencode(root / "a"), os.fsencode(root) + b"/caf\xe9")


def black_on_nothing(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image)
    return Image.fromarray(np.dstack([np.zeros_like(pixels), 255 * (pixels[..., 0] < 100).astype(np.uint8)]))


def in_lab(image: Image.Image) -> Image.Image:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    changed = ImageCms.applyTransform(image, ImageCms.buildTransform(srgb, lab, "RGB", "LAB"))
    assert changed is not None
    return changed


class Images(NamedTuple):
    make: Callable[[Path], Any]
    sizes: tuple[int, int, int] | None = (16, 2, 2)  # None: an error
    message: str = ""
    settings: Mapping[str, Any] = MappingProxyType({})


def many(root: Path, number: int) -> None:
    for label in range(number):
        fill(root, (f"c{label:02}",), 3, first=3 * label)


IMAGES = {
    "class directories": Images(fill),
    "splits": Images(in_splits("train", "val", "test"), (20, 6, 6)),
    "train and Val": Images(in_splits("train", "Val", "test"), (20, 6, 6)),
    "train and dev": Images(in_splits("train", "dev", "test"), (20, 6, 6)),
    **{
        f"{train} and {test}": Images(in_splits(train, test), (18, 2, 6))
        for train, test in (("Training", "Testing"), ("Train", "Test"), ("training_set", "test_set"), ("seg_train", "seg_test"))
    },
    "a class that is called train": Images(
        lambda root: (fill(root, ("bus", "car")), fill(root / "train", ("web",), first=30)),
        (24, 3, 3),
        "train is read as a class",
    ),
    "one directory too high": Images(
        lambda root: (fill(root / "x", ("a", "b")), fill(root / "y", ("a", "b"))), None, "the same directories (a, b)"
    ),
    "one directory too high that is meant": Images(
        lambda root: (fill(root / "x", ("a",)), fill(root / "y", ("a",), first=20)), settings={"layout": "classes"}
    ),
    "black on transparent": Images(lambda root: fill(root, change=black_on_nothing)),
    "16 bits of which 8 are used": Images(lambda root: fill(root, change=deep(1)), None, "such as data.bits=8"),
    "16 bits of which 12 are used": Images(lambda root: fill(root, change=deep(16)), None, "such as data.bits=12"),
    "16 bits of which 12 are used, set": Images(lambda root: fill(root, change=deep(16)), settings={"bits": 12}),
    "16 bits": Images(lambda root: fill(root, change=deep(257))),
    "CMYK": Images(lambda root: fill(root, suffix=".jpg", change=lambda image: image.convert("CMYK"), encode=encoded("JPEG"))),
    "black and white": Images(lambda root: fill(root, change=lambda image: image.convert("1"))),
    "palette": Images(lambda root: fill(root, change=lambda image: image.quantize(16))),
    "LAB": Images(lambda root: fill(root, suffix=".tif", change=in_lab, encode=encoded("TIFF"))),
    "TIFF": Images(lambda root: fill(root, suffix=".tif", encode=encoded("TIFF"))),
    "float": Images(
        lambda root: fill(root, suffix=".tif", change=lambda image: image.convert("F"), encode=encoded("TIFF")),
        None,
        "mode F has no defined range",
    ),
    "left by tools": Images(left_by_tools),
    "links, one of them broken": Images(with_links, message="1 links in"),
    "a directory that is called x.png": Images(lambda root: (fill(root), (root / "a" / "x.png").mkdir())),
    "truncated": Images(truncated, None, "1 of 2 files cannot be read"),
    "HTML as .jpg": Images(also("a/x.jpg", b"<html>404</html>"), None, "x.jpg: not a readable image"),
    "an empty file": Images(also("a/x.jpg"), None, "x.jpg: not a readable image"),
    "a name with a line feed": Images(also("a/x\ny.png", PNG(picture("a", 50))), (17, 2, 2)),
    "names without a suffix": Images(also("a/030", PNG(picture("a", 50))), message="1 files in"),
    "HEIC": Images(also("a/photo.heic", b"x"), message="convert .heic to JPEG or PNG"),
    ".jfif": Images(lambda root: fill(root, suffix=".jfif", encode=encoded("JPEG"))),
    "AVIF as .jpg": Images(lambda root: fill(root, suffix=".jpg", encode=encoded("AVIF"))),
    "MPO as .jpg": Images(
        lambda root: fill(root, suffix=".jpg", encode=encoded("MPO", save_all=True, append_images=[picture("z", 1)]))
    ),
    "animations": Images(
        lambda root: fill(root, suffix=".gif", encode=encoded("GIF", save_all=True, append_images=[picture("z", 1)]))
    ),
    "1x300 pixels": Images(also("a/x.png", PNG(Image.new("RGB", (1, 300), "red"))), (17, 2, 2)),
    "names of classes": Images(lambda root: fill(root, ("big cat & <b>", "Übel 'x', z=1", "-dash", "🐱")), (32, 4, 4)),
    "Unicode in two forms": Images(composed_and_decomposed, (18, 6, 2)),
    "a class that is not UTF-8": Images(not_utf8, None, r"b'caf\xe9' is not UTF-8; rename it"),
    "an empty class in training": Images(lambda root: (fill(root), (root / "c").mkdir()), None, "'c' has no image"),
    "an empty class in validation": Images(
        lambda root: (fill(root / "train"), fill(root / "val", ("a",), 3, first=20), (root / "val" / "b").mkdir()),
        (18, 3, 2),
        "val: no image of b",
    ),
    "a class that validation lacks": Images(
        lambda root: (fill(root / "train"), fill(root / "val", ("a",), 3, first=20)), (18, 3, 2), "val: no image of b"
    ),
    "a class that only validation has": Images(
        lambda root: (fill(root / "train"), fill(root / "val", ("a", "c"), 3, first=20)), None, "'c' does not occur in training"
    ),
    "three images of each class": Images(lambda root: fill(root, number=3), (4, 1, 1)),
    "classes that are not drawn for training": Images(
        lambda root: many(root, 30), (10, 40, 40), "have no training image", {"validation": 40, "test": 40}
    ),
    "many classes, stratified": Images(
        lambda root: many(root, 30), (30, 30, 30), "", {"validation": 30, "test": 30, "stratify": True}
    ),
    "copies across splits": Images(
        lambda root: (fill(root / "train"), fill(root / "val", number=2)), (18, 4, 2), "4 images of val are also in train"
    ),
    "a path with spaces and =": Images(lambda root: fill(root / "my photos (2024) a=b"), None, "only the class 'my photos"),
}


@pytest.mark.parametrize("form", IMAGES.values(), ids=list(IMAGES))
def test_images(form: Images, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "pictures"
    form.make(root)
    data = ImageFolder(str(root), image_size=8, cache="none", **form.settings)
    if form.sizes is None:
        with pytest.raises(InputError) as raised:
            prepare_and_load(data, "fit")
        assert form.message in str(raised.value)
        return
    prepare_and_load(data, "fit", "test")
    assert tuple(data.sizes[split] for split in ("train", "val", "test")) == form.sizes
    assert form.message in caplog.text
    assert all(
        len({bytes(image.numpy()) for image in arrays.images}) > 1 for arrays in data.arrays.values() if len(arrays.labels) > 2
    )
