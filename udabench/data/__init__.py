"""From files to batches: reading, resizing, sampling, cropping, prepared stores, the doctor."""
