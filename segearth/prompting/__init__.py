"""A vision-language model that writes boxes and points, and a frozen segmenter that turns them into masks."""
