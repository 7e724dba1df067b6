"""Every byte of the input is in a row that was written, or in a line that was rejected; nothing cheats the proof."""
