"""From source to sink: decode, upload, denoise, download, encode."""
