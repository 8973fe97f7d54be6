"""The processing pipeline from source to sink: decode, upload, denoise, download, encode."""
