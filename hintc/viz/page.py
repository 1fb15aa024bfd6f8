"""The page of a dump: every pass with what it did, said and left behind, in one HTML file."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from hintc.remark import Remark

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
       color: #1f2933; }
h1 { font-size: 1.4rem; }
section { border-top: 1px solid #cbd2d9; padding: .8rem 0; }
h2 { font-size: 1.05rem; margin: 0 0 .3rem; }
.still h2 { color: #7b8794; font-weight: normal; }
.counts { color: #14683c; }
.files a { margin-right: 1em; }
.note { white-space: pre-wrap; color: #ad4410; }
ul { margin: .3rem 0; padding-left: 1.2rem; }
.fused b { color: #14683c; } .refused b { color: #ad4410; }
img { display: block; max-width: 100%; max-height: 26rem; margin-top: .5rem;
      border: 1px solid #e4e7eb; }
"""


@dataclass(frozen=True)
class Entry:
    """One pass of a dump.

    Attributes:
        stem: name of its files without the ending.
        title: the pass with its options.
        written: True if there are files.
        counts: what it counted.
        remarks: what it said.
        svg: the picture, None if there is none.
        note: what went wrong.
    """

    stem: str
    title: str
    written: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)
    remarks: tuple[Remark, ...] = ()
    svg: bytes | None = None
    note: str = ""


def page(entries: Sequence[Entry], *, pictures: bool) -> str:
    """HTML that needs no other file; the links lead to the files beside it."""
    changed = sum(entry.written for entry in entries[1:])
    head = f"{changed} of {max(len(entries) - 1, 0)} passes changed the graph"
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>hintc dump</title>',
            f"<style>{_STYLE}</style></head><body>",
            f"<h1>hintc: {head}</h1>",
            *(_section(entry, pictures) for entry in entries),
            "</body></html>\n",
        ]
    )


def _section(entry: Entry, pictures: bool) -> str:
    return "\n".join(
        [
            f'<section id="{escape(entry.stem)}"{"" if entry.written else " class=still"}>',
            f"<h2>{escape(entry.stem[:3])} {escape(entry.title)}</h2>",
            *_counts(entry),
            *_remarks(entry.remarks),
            *([f'<p class="note">{escape(entry.note)}</p>'] if entry.note else []),
            *_files(entry, pictures),
            "</section>",
        ]
    )


def _counts(entry: Entry) -> Iterable[str]:
    if entry.counts:
        told = ", ".join(f"{times} {what}" for what, times in entry.counts.items() if times)
        yield f'<div class="counts">{escape(told)}</div>'
    elif not entry.written:
        yield "<div>no change</div>"


def _remarks(remarks: Sequence[Remark]) -> Iterable[str]:
    if not remarks:
        return
    yield "<ul>"
    for remark in remarks:
        kind = escape(remark.kind.value)
        where = f"<b>{kind}</b> {escape(remark.code)} at <code>{escape(remark.node)}</code>"
        text = f"{remark.reason} {remark.remedy}".rstrip()
        yield f'<li class="{kind}">{where}: {escape(text)}</li>'
    yield "</ul>"


def _files(entry: Entry, pictures: bool) -> Iterable[str]:
    if not entry.written:
        return
    endings = ["hir", *(["dot"] if pictures else []), *(["svg"] if entry.svg is not None else [])]
    names = [f"{escape(entry.stem)}.{ending}" for ending in endings]
    links = "".join(f'<a href="{name}">{name}</a>' for name in names)
    yield f'<div class="files">{links}</div>'
    if entry.svg is not None:
        data = base64.b64encode(entry.svg).decode()
        picture = f'<img alt="{escape(entry.title)}" src="data:image/svg+xml;base64,{data}">'
        yield f'<a href="{escape(entry.stem)}.svg">{picture}</a>'
