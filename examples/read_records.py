"""Every number of a report can be computed again from the click records."""

import sys
from pathlib import Path

import pandas as pd

run = Path(sys.argv[1] if len(sys.argv) > 1 else "histoclick-demo/runs/histoclick-tiny")
records = pd.read_parquet(run / "clicks.parquet")
reached = records[records["iou"] >= 0.85].groupby("patch")["click"].min()
clicks = reached.reindex(records["patch"].unique())
print(f"NoC@85 {clicks.fillna(records['click'].max()).mean():.2f}")
print(f"NoF@85 {clicks.isna().sum()} of {len(clicks)}")
