#!/bin/sh
# Prints how many milliseconds of audio ffmpeg decodes out of each file, or a dash.
for f in "$@"; do
  rate=$(ffprobe -v quiet -select_streams a:0 -show_entries stream=sample_rate -of csv=p=0 "$f" | head -1 | tr -dc 0-9)
  if [ -z "$rate" ]; then echo "$(basename "$f") -"; continue; fi
  n=$(timeout 20 ffmpeg -nostdin -v quiet -i "$f" -map 0:a:0 -ac 1 -ar "$rate" -f s16le - | wc -c)
  if [ "$n" = 0 ]; then echo "$(basename "$f") -"; else echo "$(basename "$f") $(((n / 2 * 1000 + rate / 2) / rate))"; fi
done
