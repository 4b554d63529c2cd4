"""The filters that turn a track into samples at 16 kHz: on the file's clock, mixed to one channel or kept by side.

Beside the samples they can measure levels (`levels` reads those), so that what a mix would lose is seen.
"""

from __future__ import annotations

from whisper_xeon.audio.levels import LEVELS_PER_SECOND
from whisper_xeon.audio.probe import LONGEST_HOLE, Media, Track

SAMPLE_RATE = 16_000

# Smaller differences between the samples and the clock are jitter, in samples.
_JITTER = SAMPLE_RATE // 10
# The first packet and the first samples may differ by this much about where a track begins, in samples.
_START_TOLERANCE = SAMPLE_RATE // 2
_SLACK_SECONDS = 1  # by which a file's own duration may be too short

# Through 16-bit integers, so that a float input cannot smuggle in infinities or not-a-number.
_S16 = f"aformat=sample_fmts=s16:sample_rates={SAMPLE_RATE}"
_MONO = f"{_S16}:channel_layouts=mono"
_STEREO = f"{_S16}:channel_layouts=stereo"
# The mean squares of left, right and their mix, as if they were channels.
_MEASURE = (
    "aformat=sample_fmts=fltp:sample_rates=8000:channel_layouts=stereo,pan=3c|c0=c0|c1=c1|c2=0.5*c0+0.5*c1,"
    f"asplit[a][b];[a][b]amultiply,aresample={LEVELS_PER_SECOND}[levels]"
)


def mix(media: Media, track: Track, *, measured: bool) -> str:
    """Return the graph from a track to [mono], ffmpeg's usual mix; with `measured` also to [levels]."""
    rest = f"{_on_clock(_MONO, media, track)}[mono]"
    if not measured:
        return f"[0:{track.stream}]{rest}"
    return f"[0:{track.stream}]asplit[mixed][measured];[mixed]{rest};[measured]{_MEASURE}"


def mix_in_quadrature(media: Media, track: Track) -> str:
    """Return the graph from a stereo track to [mono] in which no sound that both sides have cancels out.

    One side is shifted by a quarter of a period at every frequency: what is equal on both sides, or opposite, or
    anything between, comes out with 0.7 of its strength.
    """
    return (
        f"[0:{track.stream}]{_STEREO},channelsplit[l][r];[l]aphaseshift=shift=0[l0];[r]aphaseshift=shift=0.5[r90];"
        f"[l0][r90]amerge,pan=mono|c0=0.5*c0+0.5*c1,{_on_clock(_MONO, media, track)}[mono]"
    )


def split(media: Media, track: Track) -> str:
    """Return the graph from a stereo track to [left], [right] and, on the same clock, [levels]."""
    return (
        f"[0:{track.stream}]{_on_clock(_STEREO, media, track)},asplit[sides][measured];"
        f"[sides]channelsplit[left][right];[measured]{_MEASURE}"
    )


def _on_clock(form: str, media: Media, track: Track) -> str:
    """Return filters that convert to a form and put every frame at its time, with silence where there is none.

    No sound is ever dropped: frames that overlap, or whose time lies before the last one's or far behind it, follow at
    once, and the clock is corrected by that. No silence is put in beyond the duration that the file itself tells.
    """
    start, origin = (round(seconds * SAMPLE_RATE) for seconds in (track.start, media.origin))
    # ffmpeg's registers: 0 the samples so far, 1 what is added to the file's times, 2 the frame's own time (without
    # one it follows at once), 3 how far that is behind the samples so far.
    frame = "st(2,if(isnan(PTS),ld(0)-ld(1),PTS))"
    # ffmpeg sets its filters up again when a track changes its form: only at the track's start is silence missing.
    first = f"if(eq(N,0),st(1,if(lt(abs(ld(2)-({start})),{_START_TOLERANCE}),-({origin}),-ld(2))))"
    gap = "st(3,ld(2)+ld(1)-ld(0))"
    is_hole = f"{int(media.has_clock)}*gt(ld(3),{_JITTER})*lt(ld(3),{LONGEST_HOLE * SAMPLE_RATE})"
    if media.duration is not None:
        is_hole += f"*lt(ld(0)+ld(3),{round((media.duration + _SLACK_SECONDS) * SAMPLE_RATE)})"
    place = f"if({is_hole},st(0,ld(0)+ld(3)),if(gt(abs(ld(3)),{_JITTER}),st(1,ld(1)-ld(3))))"
    advance = "st(0,ld(0)+NB_SAMPLES)-NB_SAMPLES"
    # The form again, since aresample is free in its own; small frames again, since a hole comes out of it as one.
    return (
        f"{form},asetpts='{';'.join((frame, first, gap, place, advance))}',"
        f"aresample=async=1:min_hard_comp=0.05:first_pts=0,{form},asetnsamples=n=4096:p=0"
    )
