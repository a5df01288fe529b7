"""Where raw tables come from: RecBole atomic files, CSV, JSON lines, Parquet."""
