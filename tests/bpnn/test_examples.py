"""Examples of each task from tables: which column is what, and what is wrong in which line."""
import json

import pytest

from bpnn.data import DataError
from bpnn.data.examples import (
    ImageExample, LanguageExample, PairExample, QuestionExample, TextExample, TokenExample, find_labels, image_examples,
    language_examples, pair_examples, question_examples, regression_examples, text_examples, token_examples,
)
from bpnn.data.tables import Table, read_splits, read_table


def table_of(path, content):
    path.write_text(content, encoding="utf-8")
    return read_table(path)


def refused(make, *given, **options):
    with pytest.raises(DataError) as caught:
        make(*given, **options)
    return str(caught.value)


# Texts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        "text,label\na b,1\nc,0\n",
        "id,label,Sentence\n7,1,a b\n8,0,c\n",
        "Review , SENTIMENT\na b,1\nc,0\n", "x y,z\na b,1\nc,0\n", "a b,1\nc,0\n", "1,a b\n0,c\n",
        "title,text,label\nx,a b,1\ny,c,0\n", "review,text,label\nx,a b,1\ny,c,0\n",
    ],
)
def test_columns_of_texts(tmp_path, content):
    found = text_examples(table_of(tmp_path / "a.csv", content), labeled=True)
    assert [(example.text, example.pair, example.label) for example in found] == [("a b", None, "1"), ("c", None, "0")]
    first = 1 if content[0] in "a1" else 2
    assert [example.where for example in found] == [f"{tmp_path}/a.csv:{first + i}" for i in range(2)]
    assert find_labels(found) == ["0", "1"]


def test_pairs_of_texts():
    rows = [{"premise": "a", "hypothesis": "b", "label": 1}, {"premise": "c", "hypothesis": "d", "label": 0}]
    found = text_examples(Table.from_rows(rows))
    assert found[0] == TextExample("a", "b", "1", "data[0]")
    assert text_examples(Table.from_rows(rows), "hypothesis", label="premise")[1] == TextExample("d", None, "c", "data[1]")
    assert text_examples(Table.from_rows(rows), labeled=False)[0].label is None
    assert text_examples(Table.from_rows({"text": ["a", "b"]}))[1] == TextExample("b", None, None, "data[1]")


def test_labels_are_texts():
    cases = (([1, 0], ["1", "0"]), ([1.0, 0.0], ["1", "0"]), ([True, False], ["True", "False"]), ([" a", "b "], ["a", "b"]))
    for values, expected in cases:
        found = text_examples(Table.from_rows({"text": ["x", "y"], "label": values}))
        assert [example.label for example in found] == expected
    some = [TextExample("", None, label) for label in ("10", "9", "1")]
    assert find_labels(some) == ["1", "9", "10"] and find_labels([*some, TextExample("", None, "b")]) == ["1", "10", "9", "b"]


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("text,label\na,1\n  ,0\n", {}, "a.csv:3: text: expected a text, got an empty one"),
        ("text,label\na,1\nb,\n", {}, "a.csv:3: label: expected a label, got none"),
        ('text,label\n"a\nb",1\nb,2\n', {"labels": [0, 1]}, "a.csv:4: label: expected one of the labels '0', '1', got '2'"),
        ("text,label\na,1\nb,1\n", {}, "a.csv: label: expected at least two labels, got '1' alone in all 2 rows"),
        ("text,label\na,1\nb,good\nc,0\n", {}, "a.csv:3: label: expected a number as in "),
        ("text,label\na,pos\nb,neg\nc,0\n", {}, "a.csv:4: label: expected a word as in "),
        ("text,stars\na b,1\nc,2\n", {"label": "label"}, "a.csv: expected a column 'label', got 'text', 'stars'"),
        ("text,label\na b,1\nc,2\n", {"text": "review"}, "a.csv: expected a column 'review', got 'text', 'label'"),
        ("text,stars,n\na b,1,5\nc,2,6\n", {"labeled": True},
         "a.csv: which column is the label? There are 'text', 'stars', 'n': say which with label="),
        ("review,comment,label\na b,c,0\nd,e,1\n", {}, "a.csv: 'review' and 'comment' could be the text: say which with text="),
        ("text,class,target\na b,1,2\nc,3,4\n", {}, "a.csv: 'class' and 'target' could be the label: say which with label="),
        ("1,2,a b\n3,4,c d\n1,2,e f\n", {}, "a.csv: 'column1' and 'column2' could be the label: say which with label="),
        ("this or that,here,1\nno,there,2\n", {}, "a.csv: "),
        ("n,label\n1,a\n2,b\n", {"text": "n"}, None),
    ],
)
def test_bad_texts(tmp_path, content, options, words):
    table = table_of(tmp_path / "a.csv", content)
    if words is None:
        assert [example.text for example in text_examples(table, **options)] == ["1", "2"]
    else:
        assert refused(text_examples, table, **options).startswith(f"{tmp_path}/{words}")


def test_types_of_json(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": 1}\n{"text": 5, "label": 0}\n')
    assert refused(text_examples, read_table(tmp_path / "a.jsonl")).endswith("a.jsonl:2: text: expected a text, got 5 (int)")
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": 1}\n{"label": 0}\n')
    assert refused(text_examples, read_table(tmp_path / "a.jsonl")).endswith("a.jsonl:2: text: expected a text, got none")
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": 1}\n{"text": "b", "label": [0]}\n')
    assert refused(text_examples, read_table(tmp_path / "a.jsonl")).endswith("a.jsonl:2: label: expected a label, got [0] (list)")


def test_wrong_type_in_parquet(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"text": [1.5, 2.5], "label": ["a", "b"]}), tmp_path / "a.parquet")
    assert refused(text_examples, read_table(tmp_path / "a.parquet")).endswith(
        "a.parquet: row 1: text: expected a text, got 1.5 (float)")


def test_regression(tmp_path):
    table = table_of(tmp_path / "a.csv", "text,score\na,1\nb,-2.5e1\nc, 0.5\n")
    assert [example.label for example in regression_examples(table)] == [1.0, -25.0, 0.5]
    found = regression_examples(Table.from_rows({"review": ["a", "b"], "how_good": [1, 2.5]}))
    assert [example.label for example in found] == [1.0, 2.5]
    for value, got in (("good", "'good'"), ("", "none"), ("nan", "'nan'"), ("inf", "'inf'"), ("1_0", "'1_0'"),
                       ('"1,5"', "'1,5'; numbers have a point, no comma")):
        table = table_of(tmp_path / "a.csv", f"text,score\na,1\nb,{value}\n")
        assert refused(regression_examples, table) == f"{tmp_path}/a.csv:3: score: expected a number, got {got}"
    table = table_of(tmp_path / "a.csv", "text,score\na,1\nb,1\n")
    assert "expected numbers that differ, got 1.0 in all 2 rows" in refused(regression_examples, table, labeled=True)


def test_labels_unseen_in_training():
    splits = read_splits({"train": ([*"ab"], [*"xy"]), "validation": ([*"cd"], [*"xz"])})
    labels = find_labels(text_examples(splits.train))
    words = "data[1]: label: expected one of the labels 'x', 'y', got 'z'"
    assert refused(text_examples, splits.validation, labels=labels) == words
    only = Table.from_rows(([*"cd"], [*"xx"]))  # one label alone is no fault of a test part
    assert len(text_examples(only, labels=labels)) == 2


# Tokens ---------------------------------------------------------------------------------------------------------------


def test_token_examples(tmp_path):
    expected = [(["EU", "rejects"], ["B-ORG", "O"]), (["Peter"], ["B-PER"])]
    rows = [{"tokens": tokens, "ner_tags": tags} for tokens, tags in expected]
    lines = [json.dumps(row) for row in rows]
    tables = [Table.from_rows(rows), table_of(tmp_path / "a.jsonl", "\n".join(lines)),
              table_of(tmp_path / "a.csv", "tokens,tags\nEU rejects,B-ORG O\nPeter,B-PER\n"),
              table_of(tmp_path / "b.tsv", 'tokens\ttags\n["EU", "rejects"]\t["B-ORG", "O"]\n["Peter"]\t["B-PER"]\n'),
              table_of(tmp_path / "a.conll", "EU B-ORG\nrejects O\n\nPeter B-PER\n")]
    for table in tables:
        found = token_examples(table, labeled=True)
        assert [(example.tokens, example.tags) for example in found] == expected
    assert found[1] == TokenExample(["Peter"], ["B-PER"], f"{tmp_path}/a.conll:4")
    assert token_examples(tables[0], labeled=False)[0].tags is None
    assert token_examples(Table.from_rows({"tokens": [["a"], ["b"]], "tags": [[1], [2]]}))[0].tags == ["1"]


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        ({"tokens": [["a", "b"]], "tags": [["O"]]}, {}, "data[0]: tags: expected 2 tags, as many as tokens, got 1"),
        ({"tokens": [["a"], []], "tags": [["O"], []]}, {}, "data[1]: tokens: expected tokens, got none"),
        ({"tokens": [["a", 5]], "tags": [["O", "O"]]}, {}, "data[0]: tokens: expected tokens that are texts, got 5"),
        ({"tokens": [["a"]], "tags": [[None]]}, {}, "data[0]: tags: expected a label, got none"),
        ({"tokens": [["a"]], "tags": [5]}, {}, "data[0]: tags: expected a list, or a text divided by blanks, got 5"),
        ({"tokens": [["a"]], "tags": [["B"]]}, {"labels": ["O"]}, "data[0]: tags: expected one of the tags 'O', got 'B'"),
        ({"tokens": [["a"]], "tags": [["O"]]}, {}, "data: tags: expected at least two tags, got 'O' alone"),
        ({"tokens": [["a"]]}, {"labeled": True}, "data: expected columns tokens and tags, got 'tokens': say which with label="),
        ({"a": [["a"]]}, {}, "data: expected columns tokens and tags, got 'a'"),
    ],
)
def test_bad_tokens(rows, options, words):
    assert refused(token_examples, Table.from_rows(rows), **options).startswith(words)


# Questions ------------------------------------------------------------------------------------------------------------

SQUAD = """{"version": "v2.0", "data": [{"title": "x", "paragraphs": [
 {"context": "Bees make honey. Bees fly.", "qas": [
  {"id": "q1", "question": "Who?", "answers": [{"text": "Bees", "answer_start": 0}]},
  {"id": "q2", "question": "Why?", "is_impossible": true, "answers": []},
  {"id": "q3", "question": "What?",
   "answers": [{"text": "honey", "answer_start": 9}, {"text": "bees", "answer_start": 0}]}
 ]}
]}]}"""


def test_question_examples(tmp_path):
    found = question_examples(table_of(tmp_path / "a.json", SQUAD), labeled=True)
    context = "Bees make honey. Bees fly."
    assert found == [
        QuestionExample("q1", "Who?", context, [("Bees", 0)], f"{tmp_path}/a.json:3"),
        QuestionExample("q2", "Why?", context, [], f"{tmp_path}/a.json:4"),
        QuestionExample("q3", "What?", context, [("honey", 10)], f"{tmp_path}/a.json:5"),
    ]
    row = {"question": "Who?", "context": context, "answer_text": "Bees"}
    rows = [{**row, "answer_start": start} for start in (0, "17", 15.0, None, -1)]
    starts = [example.answers for example in question_examples(Table.from_rows(rows))]
    assert starts == [[("Bees", i)] for i in (0, 17, 17, 0, 0)]
    row = {"question": "Who?", "context": context, "answers": '{"text": ["fly"], "answer_start": [22]}'}
    assert question_examples(Table.from_rows([row]))[0] == QuestionExample("0", "Who?", context, [("fly", 22)], "data[0]")
    assert question_examples(Table.from_rows([{"question": "Who?", "context": context}]))[0].answers == []


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({"context": None}, {}, "data[0]: context: expected a text, got none"),
        ({"question": " "}, {}, "data[0]: question: expected a text, got an empty one"),
        ({"answers": [{"text": "wax", "answer_start": 0}]}, {}, "data[0]: the answer 'wax' is not in the context"),
        ({"answers": [{"text": "make", "answer_start": 1}]}, {"locate": False},
         "data[0]: expected the answer 'make' at character 1 of the context, got 'ees '"),
        ({"answers": [{"text": "make", "answer_start": "x"}]}, {}, "data[0]: answer_start: expected a whole number, got 'x'"),
        ({"answers": ["make"]}, {}, 'data[0]: answers: expected [{"text": …, "answer_start": …}], got [\'make\']'),
        ({"answers": "[make"}, {}, "data[0]: answers: expected answers in JSON, got '[make'"),
    ],
)
def test_bad_questions(change, options, words):
    row = {"question": "Who?", "context": "Bees make honey.", "answers": [], **change}
    assert refused(question_examples, Table.from_rows([row]), **options).startswith(words)


def test_questions_without_columns():
    assert refused(question_examples, Table.from_rows([{"question": "x"}])) == (
        "data: expected columns question and context, got 'question'")
    rows = [{"question": "x", "context": "y"}]
    assert "expected a column answers" in refused(question_examples, Table.from_rows(rows), labeled=True)


# Pairs ----------------------------------------------------------------------------------------------------------------


def test_pair_examples():
    found = pair_examples(Table.from_rows([{"sentence1": "a", "sentence2": "b", "score": "0.5"}]))
    assert found == [PairExample("a", "b", 0.5, None, "data[0]")]
    found = pair_examples(Table.from_rows([{"anchor": "a", "positive": "b", "negative": "c"}]))
    assert found == [PairExample("a", "b", None, "c", "data[0]")]
    assert pair_examples(Table.from_rows([{"x": "a", "y": "b"}]), "x", "y")[0].second == "b"
    assert refused(pair_examples, Table.from_rows([{"x": "a", "y": "b"}])).startswith("data: expected columns sentence1, sentence2")
    assert refused(pair_examples, Table.from_rows([{"x": "a"}]), "x").startswith("data: expected both text= and text_pair=")
    assert refused(pair_examples, Table.from_rows([{"sentence1": "a", "sentence2": "b", "score": "much"}])) == (
        "data[0]: score: expected a number, got 'much'")
    assert refused(pair_examples, Table.from_rows([{"anchor": "a", "positive": "b", "negative": ""}])) == (
        "data[0]: negative: expected a text, got an empty one")


# Images ---------------------------------------------------------------------------------------------------------------


def test_image_examples(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for i in range(2):
        image.new("RGB", (5, 4), (i, 0, 0)).save(tmp_path / f"{i}.png")
    paths = [str(tmp_path / f"{i}.png") for i in range(2)]
    table = Table.from_rows({"image": paths, "label": ["a", "b"]})
    assert image_examples(table)[1] == ImageExample(paths[1], "b", "data[1]")
    assert image_examples(table, labeled=False)[1].label is None
    assert refused(image_examples, table, labels=["a"]) == "data[1]: label: expected one of the labels 'a', got 'b'"
    (tmp_path / "1.png").write_bytes((tmp_path / "0.png").read_bytes()[:45])
    assert refused(image_examples, table).startswith(f"data[1]: {paths[1]}: cannot be decoded as an image (")
    assert len(image_examples(table, decode=False)) == 2
    (tmp_path / "1.png").unlink()
    for decode in (True, False):
        assert refused(image_examples, table, decode=decode) == f"data[1]: {paths[1]}: no such image"


# Language -------------------------------------------------------------------------------------------------------------

TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def test_language_examples(tmp_path):
    rows = [
        {"text": "a text"}, {"prompt": "2+2=", "completion": "4"}, {"messages": TALK},
        {"instruction": "Add", "input": "2, 2", "output": "4"}, {"instruction": "Smile", "output": ":)"},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        {"question": "Who?", "answer": "Me"}, {"prompt": TALK, "completion": [{"role": "assistant", "content": [{"text": "Bye"}]}]},
        {"messages": json.dumps(TALK), "text": "not looked at", "tools": []},
    ]
    found = language_examples(table_of(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows))))
    assert [example.kind for example in found] == [
        "text", "completion", "messages", "completion", "completion", "messages", "completion", "messages", "messages"]
    assert found[0] == LanguageExample(text="a text", where=f"{tmp_path}/a.jsonl:1")
    assert (found[1].prompt, found[1].completion) == ("2+2=", "4")
    assert found[2].messages == found[5].messages == found[8].messages == TALK
    assert "Add" in found[3].prompt and "### Input:\n2, 2\n\n### Response:\n" in found[3].prompt and found[3].completion == "4"
    assert found[4].prompt.endswith("### Instruction:\nSmile\n\n### Response:\n") and "Input" not in found[4].prompt
    assert found[7].messages[2] == {"role": "assistant", "content": "Bye"} and found[7].first == 2
    assert language_examples(Table.from_rows({"story": ["a", "b"]}))[1].text == "b"
    assert language_examples(Table.from_rows({"text": ["a"], "prompt": ["x"], "completion": ["y"]}), text="text")[0].kind == "text"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "x", "completion": " "}, "data[0]: completion: expected a text, got an empty one"),
        ({"prompt": "", "completion": "x"}, "data[0]: prompt: expected a text, got an empty one"),
        ({"prompt": "x"}, "data: expected prompt and completion (instruction and output), or messages, or text, got 'prompt'"),
        ({"text": None, "prompt": "x"}, "data[0]: expected messages, or prompt and completion, or text, got 'prompt'"),
        ({"messages": []}, "data[0]: messages: expected a list of messages, got []"),
        ({"messages": "[{]"}, "data[0]: messages: expected messages in JSON, got '[{]'"),
        ({"messages": ["Hi"]}, "data[0]: messages: message 1: expected {\"role\": …, \"content\": …}, got 'Hi'"),
        ({"messages": [*TALK, {"role": "asistant", "content": "x"}]}, "data[0]: messages: message 3: role: expected one of"),
        ({"messages": [{"role": "user", "content": 5}]}, "data[0]: messages: message 1: content: expected a text, got 5"),
        ({"messages": [{"role": "assistant", "content": ""}]}, "data[0]: messages: message 1: content: expected a text of the"),
        ({"messages": TALK[:1]}, "data[0]: expected a message of the assistant, got user"),
        ({"prompt": TALK, "completion": TALK[:1]}, "data[0]: expected a message of the assistant, got user"),
        ({"a": "x y z", "b": "z y x"}, "data: which column is the text? There are 'a', 'b': say which with text="),
    ],
)
def test_bad_language(row, words):
    assert refused(language_examples, Table.from_rows([row])).startswith(words)


# Real data ------------------------------------------------------------------------------------------------------------


def test_real_examples(data_dir):
    splits = read_splits(data_dir / "sst2")
    train = text_examples(splits.train, labeled=True)
    assert len(train) == 6920 and train[6919].where == f"{data_dir}/sst2/train.tsv:6920" and find_labels(train) == ["0", "1"]
    assert train[0].text.startswith("a stirring , funny") and train[0].label == "1"
    splits = read_splits(data_dir / "chnsenticorp" / "chnsenticorp.zip")
    train = text_examples(splits.train, labeled=True)
    assert train[0].text.startswith("选择珠江花园的原因就是方便") and train[-1].where.endswith("chnsenticorp.zip/train.tsv:9601")
    found = question_examples(read_table(data_dir / "cmrc2018" / "cmrc2018_dev.json"), labeled=True)
    assert len(found) == 3219 and all(e.context[s : s + len(t)] == t for e in found for t, s in e.answers)
    table = read_table(data_dir / "cmrc2018" / "cmrc2018_trial.json")  # one of its questions is empty
    assert refused(question_examples, table).endswith("cmrc2018_trial.json:9736: question: expected a text, got an empty one")
