"""Examples from files: tables, their parts, images in folders.

    table = read_table("reviews.csv")                    # .tsv .jsonl .json .parquet .txt, .gz, zip archives, fsspec's addresses
    splits = read_splits("reviews.csv", stratify="label", seed=0)     # splits.train, splits.validation, splits.test
    splits = read_images("flowers")                      # a folder for each class

`_table` holds rows, `sources` opens and reads lines, `delimited` and `json_tables` know two families of formats, `table_files` the
others and all names, `columns` finds which column is what, `splits` makes parts.
"""
from ._table import Table
from .splits import ImageTable, Splits, read_images, read_splits
from .table_files import read_table

__all__ = ["ImageTable", "Splits", "Table", "read_images", "read_splits", "read_table"]
