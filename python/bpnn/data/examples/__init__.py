"""Rows of tables as examples of a task: checked before training, each with the place where it was read.

Every function takes a `Table` and gives a list; it raises `DataError` "FILE:LINE: what was expected, what came".
"""
from .images import ImageExample, image_examples
from .language import LanguageExample, language_examples
from .pairs import PairExample, pair_examples
from .questions import QuestionExample, question_examples
from .texts import TextExample, find_labels, regression_examples, text_examples
from .tokens import TokenExample, token_examples

__all__ = [
    "ImageExample",
    "LanguageExample",
    "PairExample",
    "QuestionExample",
    "TextExample",
    "TokenExample",
    "find_labels",
    "image_examples",
    "language_examples",
    "pair_examples",
    "question_examples",
    "regression_examples",
    "text_examples",
    "token_examples",
]
