#!/bin/sh
# Makes the recordings of this folder, all of the same 1.234 s, into the present one. Needs Debian's ffmpeg, sox,
# libsox-fmt-all, flac, lame, opus-tools, vorbis-tools and mkvtoolnix.
set -eu
ff() { ffmpeg -nostdin -v error -y "$@"; }

sox -R -b 16 -r 8000  -n 8k.wav  synth 9872s  sine 440 gain -6
sox -R -b 16 -r 22050 -n 22k.wav synth 27210s sine 300 gain -6
sox -R -b 16 -r 44100 -n -c 2 44k.wav synth 54419s sine 440-2000 gain -6
sox -R -b 16 -r 48000 -n 48k.wav synth 59232s sine 300 gain -6
b='-fflags +bitexact -flags:a +bitexact'

# WAV
ff -i 8k.wav $b -c:a adpcm_ms msadpcm.wav
ff -i 8k.wav $b -c:a libmp3lame -b:a 16k mp3.wav
sox -R 8k.wav -e gsm gsm.wav

# AIFF and CAF
ff -i 8k.wav $b pcm.aiff
ff -i 8k.wav $b -c:a pcm_s16le -f aiff sowt.aifc
ff -i 8k.wav $b -c:a pcm_alaw -f aiff alaw.aifc
ff -i 8k.wav $b -c:a pcm_s16le pcm.caf
ff -i 8k.wav $b -c:a adpcm_ima_qt ima4.caf
ff -i 8k.wav $b -c:a alac alac.caf
ff -i 48k.wav $b -c:a libopus -b:a 8k opus.caf

# AMR
sox -R 8k.wav -t amr-nb -C 0 narrow.amr

# AAC and MPEG-TS
ff -i 22k.wav $b -c:a aac -b:a 16k adts.aac
ff -i 22k.wav $b -c:a aac -b:a 16k aac.ts
ff -i 48k.wav $b -c:a mp2 -b:a 32k mp2.ts
ff -i 48k.wav $b -c:a ac3 -b:a 32k ac3.ts
ff -i 48k.wav $b -c:a libopus -b:a 8k opus.ts
ff -i 22k.wav $b -c:a aac -b:a 16k -mpegts_flags latm latm.ts
ff -f lavfi -i testsrc=size=16x16:rate=2:duration=3 -i 22k.wav $b -c:v mpeg2video -r 25 -c:a aac -b:a 16k -mpegts_m2ts_mode 1 video.m2ts

# Matroska and WebM
ff -i 48k.wav $b -c:a libopus -b:a 8k opus.webm
ff -i 48k.wav $b -c:a libopus -b:a 8k -live 1 -f webm - | cat >live.webm
ff -i 48k.wav $b -c:a libopus -b:a 8k -f webm - | cat >pipe.webm
ff -i 44k.wav $b -c:a libvorbis -q:a -1 vorbis.webm
ff -f lavfi -i testsrc=size=16x16:rate=2:duration=3 -i 48k.wav $b -c:v libvpx -b:v 4k -c:a libopus -b:a 8k video.webm
ff -i 22k.wav $b -c:a aac -b:a 16k aac.mkv
ff -i 22k.wav $b -c:a libmp3lame -b:a 16k mp3.mkv
ff -i 8k.wav $b -c:a flac flac.mkv
ff -i 8k.wav $b -c:a pcm_s16le pcm.mkv
ff -i 48k.wav $b -c:a ac3 -b:a 32k ac3.mkv
ff -i 48k.wav $b -c:a eac3 -b:a 32k eac3.mkv
ff -i 8k.wav $b -c:a alac alac.mkv
mkvmerge -q --deterministic 1 --engage lacing_xiph -o xiph.mka ../mpeg2.mp3 2>/dev/null || mkvmerge -q --deterministic 1 -o xiph.mka ../mpeg2.mp3
mkvmerge -q --deterministic 1 --compression 0:none --engage lacing_ebml -o ebml.mka ../vorbis.ogg 2>/dev/null || mkvmerge -q --deterministic 1 -o ebml.mka ../vorbis.ogg

# MP4
ff -i 44k.wav $b -c:a aac -b:a 24k -movflags +faststart faststart.m4a
ff -i 8k.wav $b -c:a alac alac.m4a
ff -i 48k.wav $b -c:a libopus -b:a 8k opus.mp4
ff -i 22k.wav $b -c:a libmp3lame -b:a 16k mp3.mp4
ff -i 8k.wav $b -c:a pcm_s16be pcm.mov
ff -i 8k.wav $b -c:a adpcm_ima_qt ima4.mov
sox -R 8k.wav -t amr-nb -C 0 - | ff -f amr -i - $b -c:a copy amr.3gp

# Ogg, in several pages
ff -i ../opus.opus $b -c copy -page_duration 200000 pages.opus
ff -i 44k.wav $b -c:a libvorbis -q:a -1 -page_duration 200000 pages.ogg

# ASF
ff -i 22k.wav $b -c:a wmav2 -b:a 24k two.wma
ff -i 22k.wav $b -c:a wmav1 -b:a 24k one.wma

rm 8k.wav 22k.wav 44k.wav 48k.wav
