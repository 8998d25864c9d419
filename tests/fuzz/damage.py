"""Damage to the files of a folder."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from hypothesis import strategies as st
from hypothesis.strategies import DataObject
from safetensors.torch import load_file, save_file
from trees import STRINGS, as_json, as_yaml, damage_tree, odd_tensor, odd_value

from mtl_nlp.messages import one_line

LONG = "word " * 24_000
"""A text that fits into memory, but not squared."""
_ALIASES = "x:\n- &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"- &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
"""YAML whose aliases expand to 10^9 items."""

CELLS: tuple[Any, ...] = (
    None, "", " ", "_", "-", "O", "B-PER", "I-PER", "B-", "I-PER ", "x", "a", "A", "a ", "1", "01", "1.0", "0", "-1",
    "-100", "nan", "NA", "true", "1,5", "a;b", "[]", "{}", "ü", "\u200b", 0, 1, -1, -100, 2**63, 1.0, 0.5, 1e39, True,
    [], [[]], ["x"], ["x", None], [None], [0, 1], [1.5], {}, {"x": 1}, ["B-PER"] * 3, "2024-01-01", "word " * 50,
)  # fmt: skip
"""Cells of labels and texts that mean something else to different readers."""


class Payload:
    """An object whose unpickling creates the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.canary), "w")


class Damage:
    """Ways to damage files, chosen by hypothesis. Every method damages a file in place and describes the damage.

    Args:
        data: chooses the damage.
        canary: the file that a payload creates.
        outside: a folder that is not part of the case.
        other: a folder with files of the same names of a different model.
    """

    def __init__(self, data: DataObject, canary: Path, outside: Path, other: Path) -> None:
        self.data, self.canary, self.outside, self.other = data, canary, outside, other

    def choose(self, options: Sequence[Any]) -> Any:
        """Draw one of some options."""
        return self.data.draw(st.sampled_from(options))

    def rarely(self, times: int) -> bool:
        """Draw True once in the given number of times."""
        return self.data.draw(st.integers(0, times - 1)) == 0

    def folder(self, folder: Path) -> str:
        """Damage one or two files of a folder, or add a file."""
        kind = self.choose(["any"] * 10 + ["add", "no tokenizer"])
        if kind == "add":
            return self.add_file(folder)
        if kind == "no tokenizer":
            for file in folder.glob("tokenizer*"):
                file.unlink()
            return kind
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
        chosen = self.data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True))
        return "; ".join(f"{name}: {self.any(folder / name)}" for name in chosen)

    def any(self, file: Path) -> str:
        """Damage the content, the bytes or the existence of a file."""
        ways = {
            ".json": self.json,
            ".jsonl": self.json_lines,
            ".yaml": self.yaml,
            ".parquet": self.table,
            ".safetensors": self.weights,
            ".pt": self.pickled,
            ".pth": self.pickled,
        }
        content = ways.get(file.suffix, self.text)
        return self.choose([content] * 6 + [self.bytes] * 2 + [self.file])(file)

    def json(self, file: Path) -> str:
        """Damage a value of a JSON file, or repeat a key."""
        tree = json.loads(file.read_text(encoding="utf-8"))
        if self.rarely(16):
            key, value = self.choose(sorted(tree)), odd_value(self.data)
            file.write_bytes(as_json(tree)[:-1] + b", " + as_json({key: value})[1:])
            return f"{key}: second value {value!r:.60}"
        tree, done = damage_tree(self.data, tree)
        file.write_bytes(as_json(tree))
        return done

    def json_lines(self, file: Path) -> str:
        """Damage a value in one line, or make all texts of the line very long."""
        lines = file.read_bytes().splitlines()
        index = self.data.draw(st.integers(0, len(lines) - 1))
        tree = json.loads(lines[index])
        if self.rarely(12):
            tree, done = {key: LONG if isinstance(value, str) else value for key, value in tree.items()}, "long texts"
        else:
            tree, done = damage_tree(self.data, tree)
        lines[index] = as_json(tree)
        file.write_bytes(b"\n".join(lines) + b"\n")
        return f"line {index + 1}: {done}"

    def yaml(self, file: Path) -> str:
        """Damage a value of a YAML file, or add a tag that constructs an object, or aliases."""
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
        if self.rarely(16):
            added = self.choose([self.tag(), _ALIASES])
            file.write_bytes(as_yaml(tree) + added.encode())
            return f"add {added[:40]!r}"
        tree, done = damage_tree(self.data, tree)
        file.write_bytes(as_yaml(tree))
        return done

    def tag(self) -> str:
        """Return YAML with code."""
        return f"x: !!python/object/apply:builtins.open [{json.dumps(str(self.canary))}, w]\n"

    def text(self, file: Path) -> str:
        """Damage lines and columns of a text."""
        lines = file.read_text(encoding="utf-8").split("\n")
        index = self.data.draw(st.integers(0, len(lines) - 1))
        kind = self.choose(["cell", "cell", "cell", "delete", "repeat", "join", "long", "odd"])
        separator = "," if file.suffix == ".csv" else "\t"
        cells = lines[index].split(separator)
        odd = str(odd_value(self.data))
        if kind == "cell":
            cells[self.data.draw(st.integers(0, len(cells) - 1))] = odd
        lines[index : index + 1] = {
            "cell": [separator.join(cells)],
            "delete": [],
            "repeat": [lines[index]] * 2,
            "join": [separator.join(cells * 2)],
            "long": [LONG],
            "odd": [odd],
        }[kind]
        file.write_bytes("\n".join(lines).encode("utf-8", errors="surrogatepass"))
        return f"line {index + 1}: {kind} {odd!r:.60}"

    def column(self, file: Path) -> str:
        """Give a column odd values in all rows, in some of them, or in the first one."""
        lines = [line for line in file.read_text(encoding="utf-8").split("\n") if line]
        places = self.choose([range(len(lines)), range(1, len(lines)), range(1, len(lines), 3), [len(lines) - 1]])
        values = [self.choose(CELLS), self.choose(CELLS)]
        separator = "," if file.suffix == ".csv" else "\t"
        name: Any = None
        for number in places:
            value = values[number % 2]
            if file.suffix == ".jsonl":
                row = json.loads(lines[number])
                name = name if name is not None else self.choose(sorted(row))
                lines[number] = json.dumps(row | {name: value})
            else:
                cells = lines[number].split(separator)
                name = name if name is not None else self.data.draw(st.integers(0, len(cells) - 1))
                text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
                cells[min(name, len(cells) - 1)] = text
                lines[number] = separator.join(cells)
        file.write_bytes("\n".join(lines).encode("utf-8", errors="surrogatepass"))
        return f"column {name}: {values!r:.80} in {len(places)} lines"

    def table(self, file: Path) -> str:
        """Give a column of a Parquet file a different type."""
        table = pq.read_table(file)
        name, rows = self.choose(table.column_names), table.num_rows
        columns: dict[str, pa.Array] = {
            "integers": pa.array(range(rows)),
            "large integers": pa.array([2**63 - 1] * rows),
            "numbers": pa.array([float("nan"), 1e39, *[0.5] * (rows - 2)]),
            "bytes": pa.array([b"\xff\x00"] * rows),
            "booleans": pa.array([True] * rows),
            "nulls": pa.nulls(rows),
            "some nulls": pa.array([None, *["x"] * (rows - 1)]),
            "lists": pa.array([[], *[["x"]] * (rows - 1)]),
            "lists of lists": pa.array([[["x"]]] * rows),
            "structs": pa.array([{"x": 1}] * rows),
            "times": pa.array([0] * rows, pa.timestamp("us")),
            "categories": pa.array(["x"] * rows).dictionary_encode(),
            "long texts": pa.array([LONG, *["x"] * (rows - 1)]),
        }
        kind = self.choose([*columns, "drop", "rename", "no rows"])
        position = table.column_names.index(name)
        if kind in columns:
            table = table.set_column(position, name, columns[kind])
        elif kind == "drop":
            table = table.drop_columns([name])
        elif kind == "rename":
            table = table.rename_columns({name: self.choose(["", "x", "ü", "label"])})
        else:
            table = table.slice(0, 0)
        pq.write_table(table, file)
        return f"{name}: {kind}"

    def bytes(self, file: Path) -> str:
        """Damage the bytes of a file."""
        content = file.read_bytes()
        place = self.data.draw(st.integers(0, max(0, min(len(content) - 1, 4096))))
        place = self.choose([place, max(0, len(content) - 1 - place)])
        length = self.choose([1, 8, 100, 10_000])
        start, middle, end = content[:place], content[place : place + length], content[place + length :]
        odd = self.choose(
            [b"\x00", b"\xff", b"\r", b'"', b"{", b"\xed\xa0\x80", "é".encode("latin-1"), b"\xef\xbb\xbf"]
        )
        ways = {
            "cut the end": start,
            "cut the start": middle + end,
            "remove": start + end,
            "flip": start + bytes(byte ^ 0x55 for byte in middle) + end,
            "zero": start + bytes(length) + end,
            "append": content + b"\x00\xff" * length,
            f"insert {odd!r}": start + odd + middle + end,
            "byte order mark": b"\xef\xbb\xbf" + content,
            "UTF-16": content.decode("utf-8", errors="replace").encode("utf-16"),
            "line ends": content.replace(b"\n", b"\r\n"),
            "repeat": content * 2,
        }
        kind = self.choose([*ways])
        file.write_bytes(ways[kind])
        return f"{kind} at {place} of {len(content)}, length {length}"

    def file(self, file: Path) -> str:
        """Delete a file, or replace it by something else."""
        sibling = self.choose(sorted(path.name for path in file.parent.iterdir() if path.is_file()))
        replacements: dict[str, Callable[[], object]] = {
            "delete": lambda: None,
            "empty": file.touch,
            "folder": file.mkdir,
            "dangling link": lambda: file.symlink_to(self.outside / "nothing"),
            "loop": lambda: file.symlink_to(file.name),
            "link outside": lambda: file.symlink_to(self.outside / "notes.txt"),
            "pickle": lambda: file.write_bytes(self.pickle()),
            "list": lambda: torch.save(self.choose([[], {}, 1, None, {"x": 1}, {"x": torch.zeros(2)}, {1: 2}]), file),
            f"copy of {sibling}": lambda: file.write_bytes(copy),
            "rename": lambda: (file.parent / f"{file.name}.old").write_bytes(content),
        }
        if (self.other / file.name).is_file():
            replacements["other model"] = lambda: shutil.copy(self.other / file.name, file)
        content, copy = file.read_bytes(), (file.parent / sibling).read_bytes()
        kind = self.choose([*replacements, "delete"])
        file.unlink()
        replacements[kind]()
        return kind

    def add_file(self, folder: Path) -> str:
        """Add a file that libraries look for, or code that the configuration names."""
        files: dict[str, bytes] = {
            "adapter_config.json": b'{"base_model_name_or_path": "ada/nothing", "peft_type": "LORA"}',
            "generation_config.json": b'{"max_length": "x"}',
            "added_tokens.json": b'{"x": 100000}',
            "special_tokens_map.json": b'{"unk_token": 5, "x": {}}',
            "vocab.txt": b"x\ny\n",
            "chat_template.jinja": b"{% for x in range(10**9) %}{% endfor %}",
            "model.safetensors.index.json": b'{"weight_map": {"x": "../outside/notes.txt"}, "metadata": {}}',
            "pytorch_model.bin": self.pickle(),
            "training_args.bin": self.pickle(),
            "weighting.pt": self.pickle(),
            "model.onnx": b"onnx",
            "recipe.yaml": self.tag().encode(),
            "custom_code.py": f"open({str(self.canary)!r}, 'w').close()\n".encode(),
        }
        name = self.choose(sorted(files))
        if name == "custom_code.py":
            config = folder / self.choose(["config.json", "tokenizer_config.json"])
            tree = json.loads(config.read_text(encoding="utf-8"))
            code = "custom_code.Custom"
            tree["auto_map"] = {"AutoConfig": code, "AutoModel": code, "AutoTokenizer": [code, code]}
            tree["model_type"] = self.choose(["custom", tree.get("model_type")])
            config.write_bytes(as_json(tree))
        (folder / name).write_bytes(files[name])
        return f"add {name}"

    def weights(self, file: Path) -> str:
        """Damage the tensors or the header of a safetensors file."""
        kind = self.choose(["tensor"] * 4 + ["drop", "rename", "add", "header", "header", "length", "metadata"])
        if kind in ("header", "length"):
            return self.header(file, kind)
        tensors: dict[str, Any] = load_file(file)
        name = self.choose(sorted(tensors))
        done = f"{kind} {name}"
        if kind == "tensor":
            new = odd_tensor(self.data, tensors[name])
            if not isinstance(new, torch.Tensor):
                new = torch.zeros(self.choose([(1, 1), (7,), (0,), (64, 64)]))
            tensors[name] = new.contiguous()
            done = f"{name} {new.dtype} {tuple(new.shape)}, finite: {bool(new.isfinite().all())}"
        elif kind == "drop":
            del tensors[name]
        elif kind == "rename":
            odd = self.choose([f"{name}x", name.replace(".", "/"), "", name.split(".")[-1], f"encoder.{name}"])
            tensors[odd] = tensors.pop(name)
            done = f"rename {name} to {odd!r}"
        elif kind == "add":
            tensors["x"] = torch.zeros(2)
        metadata = None if kind == "metadata" else {"format": self.choose(["pt"] * 5 + ["tf", "x"])}
        save_file(tensors, file, metadata=metadata)
        return done

    def header(self, file: Path, kind: str) -> str:
        """Damage the header of a safetensors file, or its length."""
        content = file.read_bytes()
        size = struct.unpack("<Q", content[:8])[0]
        if kind == "length":
            new = self.choose([0, 1, size - 1, size + 1, 2**31, 2**63, 2**64 - 1])
            file.write_bytes(struct.pack("<Q", new) + content[8:])
            return f"header of length {new}"
        tree, done = damage_tree(self.data, json.loads(content[8 : 8 + size]))
        header = as_json(tree)
        file.write_bytes(struct.pack("<Q", len(header)) + header + content[8 + size :])
        return f"header: {done}"

    def pickled(self, file: Path) -> str:
        """Damage the objects in a file of torch.save."""
        if self.rarely(8):
            file.write_bytes(self.pickle())
            return "pickle with code"
        tree, done = damage_tree(self.data, torch.load(file, weights_only=False))
        try:
            torch.save(tree, file)
        except (ValueError, TypeError, RuntimeError, UnicodeError) as error:
            file.write_bytes(b"")
            return f"emptied, since torch cannot save {done}: {one_line(error)}"
        return done

    def pickle(self) -> bytes:
        """Return a pickle with code, as pickle or torch.save writes it."""
        if self.data.draw(st.booleans()):
            return pickle.dumps({"x": Payload(self.canary)})
        buffer = io.BytesIO()
        torch.save({"x": Payload(self.canary)}, buffer)
        return buffer.getvalue()

    def task_name(self, recipe: Path) -> str:
        """Give a task of a recipe an odd name."""
        tree = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        task, odd = self.choose(sorted(tree["tasks"])), self.choose([text for text in STRINGS if len(text) < 300])
        rename_task(tree, task, odd)
        recipe.write_bytes(as_yaml(tree))
        return f"rename the task {task} to {odd!r}"


def rename_task(recipe: dict[str, Any], task: str, new: str) -> None:
    """Rename a task in all sections of a recipe."""
    recipe["tasks"][new] = recipe["tasks"].pop(task)
    for dataset in recipe["datasets"].values():
        if task in dataset["labels"]:
            dataset["labels"][new] = dataset["labels"].pop(task)
    adapters = recipe.get("adapters", {})
    if task in adapters.get("tasks", []):
        adapters["tasks"] = [new if name == task else name for name in adapters["tasks"]]
