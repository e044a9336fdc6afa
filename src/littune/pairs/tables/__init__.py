"""Tables of image-text pairs: CSV, TSV, JSONL, parquet and Hugging Face data sets."""
