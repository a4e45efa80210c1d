"""From a DATASET to labelled images.

A DATASET is opened (`open_dataset`), its columns are found, its images are decoded, scanned and brought to one size,
and rows are held out for validation (`load_images`). Leaks and near-duplicates are found here too.
"""

from __future__ import annotations

from synthaug.core import load_lazily

TYPE_CHECKING = False  # to type checkers it is that of `typing`, which takes a while to import

if TYPE_CHECKING:
    from synthaug.data.codec import DEPTHS, MAX_SIZE, MIN_SIZE, Codec, decode_bytes, to_pixels, to_tensor
    from synthaug.data.columns import (
        PROVENANCE,
        Columns,
        check_provenance,
        find_columns,
        has_provenance,
        is_label,
        label_value,
        read_labels,
        real_rows,
    )
    from synthaug.data.groups import (
        SEPARATOR,
        check_group_by,
        choose_columns,
        class_values,
        describe_absent,
        read_classes,
        read_groups,
        split_attributes,
    )
    from synthaug.data.images import (
        LabeledImages,
        count_classes,
        join_images,
        limit_images,
        load_images,
        make_long_tailed,
        plan_balance,
        split_validation,
    )
    from synthaug.data.inspection import inspect_dataset
    from synthaug.data.layouts import quiet_datasets
    from synthaug.data.leaks import LeakCheck, check_leaks, run_hashes
    from synthaug.data.neighbours import find_near_duplicates, measure_nearest, nearest_rows
    from synthaug.data.notices import read_notices
    from synthaug.data.rows import DatasetRows, corrupt_rows, digest_rows, null_column
    from synthaug.data.scan import Scan, sample_statistics, scan_images
    from synthaug.data.sources import open_dataset, open_splits, open_test, pick_split, pick_test
    from synthaug.data.streaming import STREAM_ROWS, read_stream
else:
    __getattr__, __dir__, __all__ = load_lazily(__name__)
