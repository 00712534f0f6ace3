"""Files and streams: written whole or not at all, read where they are regular, open or not."""
