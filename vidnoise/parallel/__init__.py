"""One video denoised by several processes: its frames in pieces, handed to devices, to processes or to a cluster."""
