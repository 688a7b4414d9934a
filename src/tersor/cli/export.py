"""`tersor export`: the network in files that run without tersor."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tersor.cli.shared import FUNCTION, add_command, check_out, model_of, print_json, usage_error

if TYPE_CHECKING:
    from tersor.archive import Archive
    from tersor.cli.shared import Commands

_EXAMPLES = """examples:
  tersor export model.tersor model.onnx --model nets:resnet --input 1x3x32x32
  tersor export lm.tersor lm.onnx --model nets:lm --input 1x64:int64 --opset 20
  tersor export model.tersor model.pt2 --model nets:resnet --input 1x3x32x32
  tersor compress net.onnx net.tersor --ratio 12 && tersor export net.tersor small.onnx --graph net.onnx

An .onnx file runs in any ONNX Runtime: its graph gathers codewords and adds them, once, when it is loaded. A .pt2 file
is for torch.export.load, and decodes each weight where it is used.
"""


def add_to(commands: Commands) -> None:
    """The command and its options."""
    text = "write an .onnx or .pt2 file that holds the codes and decodes them itself"
    sub = add_command(commands, "export", _export, text, _EXAMPLES)
    sub.add_argument("source", metavar="IN", help="an archive")
    sub.add_argument("out", metavar="OUT", help="the .onnx or .pt2 file to write")
    sub.add_argument("--model", metavar="FUNCTION", help=f"what builds the network: {FUNCTION}")
    sub.add_argument(
        "--input",
        action="append",
        metavar="SHAPE",
        help="of an example input, like 1x3x32x32 or 1x64:int64; may repeat",
    )
    sub.add_argument(
        "--graph", metavar="ONNX", help="instead of --model and --input: the .onnx file that was compressed"
    )
    form = sub.add_mutually_exclusive_group()
    form.add_argument(
        "--int8", action="store_true", help="a byte per weight and a scale per row, for runtimes without gather"
    )
    form.add_argument("--dense", action="store_true", help="plain float weights")
    sub.add_argument("--opset", type=int, help="ONNX opset to trace the model in (18 by default)")
    sub.add_argument("--force", action="store_true", help="overwrite OUT if it exists")


def _export(options: argparse.Namespace) -> None:
    suffix = Path(options.out).suffix.lower()
    if suffix not in (".onnx", ".pt2"):
        raise usage_error(
            f"export: {options.out} has no known suffix; write .onnx or .pt2 (decompress writes safetensors)"
        )
    if (options.graph is None) == (options.model is None):
        raise usage_error("export: give --model with --input, or --graph")
    if options.model is not None and not options.input:
        raise usage_error("export: --model needs an example --input, like 1x3x32x32")
    if suffix == ".pt2" and (options.graph or options.int8 or options.dense or options.opset is not None):
        raise usage_error("export: .pt2 takes --model and --input only")
    if options.graph is not None and (options.input or options.opset is not None):
        raise usage_error("export: --graph has its own inputs and opset; leave --input and --opset out")
    check_out(options.source, options.out, options.force)
    from tersor.api import open as open_archive

    archive = open_archive(options.source)
    found = _onnx(archive, options) if suffix == ".onnx" else _pt2(archive, options)
    dense, _ = archive.given
    found = {"file": options.out, **found, "archive": archive.size, "dense_weights": dense}
    if options.json:
        print_json(found)
        return
    print(f"{options.out}: {found['size']:,} B, {dense / found['size']:.2f}x smaller than dense weights ({dense:,} B)")


def _onnx(archive: Archive, options: argparse.Namespace) -> dict[str, Any]:
    from tersor.export.onnx_file import export_onnx
    from tersor.export.traced import DEFAULT_OPSET

    model, inputs = _network(options) if options.model is not None else (None, None)
    form = "int8" if options.int8 else "dense" if options.dense else "codes"
    made = export_onnx(
        archive, options.out, model, inputs, graph=options.graph, form=form, force=options.force, tell=_tell,
        opset=DEFAULT_OPSET if options.opset is None else options.opset,
    )  # fmt: skip
    return {
        "size": made.size, "form": form, "codes": made.codes, "graph": made.graph, "coded": len(made.coded),
        "dense": sorted(made.dense),
    }  # fmt: skip


def _tell(line: str) -> None:
    print(f"tersor: {line}", file=sys.stderr)


def _pt2(archive: Archive, options: argparse.Namespace) -> dict[str, Any]:
    from tersor.export.pt2 import export_pt2

    model, inputs = _network(options)
    made = export_pt2(archive, options.out, model, inputs, force=options.force)
    return {"size": made.size, "form": "codes", "largest": made.largest}


def _network(options: argparse.Namespace) -> tuple[Any, list[Any]]:
    """The model and the example inputs."""
    from tersor.export.traced import example

    inputs = [example(text) for text in options.input]
    return model_of(options.model), inputs
