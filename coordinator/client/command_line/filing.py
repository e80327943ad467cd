"""Keys and files from a shell: `get`, `put`, `delete`, `add`, and `files …`."""

from __future__ import annotations

import argparse
from typing import Any

from coordinator.client import Client
from coordinator.client.command_line import output
from coordinator.client.errors import InvalidRequest
from coordinator.client.watches import Snapshot


def add_to(commands: Any) -> None:
    get = commands.add_parser("get", help="print a key's value; status 1 where there is none")
    get.add_argument("key")
    get.set_defaults(run=_get_key)
    put = commands.add_parser("put", help="write a key")
    put.add_argument("key")
    put.add_argument("value", help='"-": from standard input')
    put.set_defaults(run=_put_key)
    delete = commands.add_parser("delete", help="delete a key; status 1 where there was none")
    delete.add_argument("key")
    delete.set_defaults(run=_delete_key)
    add = commands.add_parser("add", help="add to a counter, and print the sum")
    add.add_argument("key")
    add.add_argument("amount", nargs="?", type=int, default=1)
    add.set_defaults(run=_add)
    _add_files(commands.add_parser("files", help="files, directories, ranges and their changes"))


def _add_files(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    get = commands.add_parser("get", help="print a file's content")
    get.add_argument("path")
    get.add_argument("--revision", type=output.number(0), default=0, help="as it was at this revision")
    get.set_defaults(run=_get)
    put = commands.add_parser("put", help="write a file that is there; with --create one that is not")
    put.add_argument("path")
    put.add_argument("value", help='"-": from standard input')
    put.add_argument("--generation", type=output.number(0), help="only where its content generation is this")
    put.add_argument("--create", action="store_true", help="create it, and print its path; it must not be there")
    put.add_argument("--parents", action="store_true", help="with --create: make directories that are missing")
    put.add_argument("--sequential", action="store_true", help="with --create: 19 digits that grow behind its name")
    put.set_defaults(run=_put)
    stat = commands.add_parser("stat", help="print what is known of a file or directory")
    stat.add_argument("path")
    stat.set_defaults(run=_stat)
    remove = commands.add_parser("rm", help="delete a file or a directory")
    remove.add_argument("path")
    remove.add_argument("-r", "--recursive", action="store_true", help="with all that is below")
    remove.add_argument("--generation", type=output.number(0), help="only where its content generation is this")
    remove.set_defaults(run=_remove)
    make = commands.add_parser("mkdir", help="make a directory that stays when it is empty")
    make.add_argument("path")
    make.add_argument("-p", "--parents", action="store_true", help="also those above it; no error if it is there")
    make.set_defaults(run=_make_directory)
    listing = commands.add_parser("ls", help="list a directory")
    listing.add_argument("path", nargs="?", default="")
    listing.add_argument("-l", "--long", action="store_true", help="with size, revision and kind")
    listing.set_defaults(run=_list)

    in_range = argparse.ArgumentParser(add_help=False)
    in_range.add_argument("start")
    in_range.add_argument("end", nargs="?", default="", help="up to before this key")
    in_range.add_argument("--prefix", action="store_true", help="all keys that begin with START")
    in_range.add_argument("--json", action="store_true", help="a JSON object a line, values in base64")
    scan = commands.add_parser("range", parents=[in_range], help="print the keys of a range, at one revision")
    scan.add_argument("--revision", type=output.number(0), default=0)
    scan.set_defaults(run=_scan)
    watch = commands.add_parser("watch", parents=[in_range], help="print each change of a range as it is made")
    watch.add_argument("--since", type=output.number(0), default=0, help="from this revision on; default: from now on")
    watch.add_argument("--follow", action="store_true", help="print what is there first, and again after a gap")
    watch.add_argument("--count", type=output.number(1), help="end after so many changes")
    watch.set_defaults(run=_watch)


def _get_key(client: Client, options: argparse.Namespace) -> int:
    value = client.get(options.key)
    if value is None:
        return 1
    output.write_value(value)
    return 0


def _put_key(client: Client, options: argparse.Namespace) -> int:
    client.put(options.key, output.value_of(options.value))
    return 0


def _delete_key(client: Client, options: argparse.Namespace) -> int:
    return 0 if client.delete(options.key) else 1


def _add(client: Client, options: argparse.Namespace) -> int:
    print(client.add(options.key, options.amount))
    return 0


def _get(client: Client, options: argparse.Namespace) -> int:
    output.write_value(client.files.read(options.path, revision=options.revision).value)
    return 0


def _put(client: Client, options: argparse.Namespace) -> int:
    if not options.create and (options.parents or options.sequential):
        raise InvalidRequest("--parents and --sequential go with --create")
    if options.create and options.generation is not None:
        raise InvalidRequest("--generation is of a file that is there, --create makes one that is not")
    value = output.value_of(options.value)
    if options.create:
        created = client.files.create(options.path, value, sequential=options.sequential, parents=options.parents)
        print(created.path)
    else:
        client.files.write(options.path, value, generation=options.generation)
    return 0


def _stat(client: Client, options: argparse.Namespace) -> int:
    stat = client.files.stat(options.path)
    print(f"path        {stat.path}")
    print(f"kind        {'directory' if stat.directory else 'ephemeral file' if stat.ephemeral else 'file'}")
    print(f"children    {stat.children}")
    print(f"size        {stat.size}")
    print(f"generation  {stat.version}")
    print(f"revision    {stat.revision}")
    print(f"instance    {stat.instance}")
    print(f"lock        {stat.lock_generation}")
    print(f"checksum    {stat.checksum:016x}")
    if stat.sessions:
        print(f"sessions    {' '.join(map(str, stat.sessions))}")
    return 0


def _remove(client: Client, options: argparse.Namespace) -> int:
    client.files.delete(options.path, recursive=options.recursive, generation=options.generation)
    return 0


def _make_directory(client: Client, options: argparse.Namespace) -> int:
    client.files.make_directory(options.path, parents=options.parents)
    return 0


def _list(client: Client, options: argparse.Namespace) -> int:
    after: str | None = None
    while True:
        page = client.files.list_directory(options.path, after=after, limit=1_000)
        for child in page.children:
            name = f"{child.name}/" if child.directory else child.name
            print(f"{child.size:>9} {child.revision:>12}  {name}" if options.long else name)
            after = child.name
        if not page.more:
            return 0


def _scan(client: Client, options: argparse.Namespace) -> int:
    for view in client.files.scan(options.start, options.end, prefix=options.prefix, revision=options.revision):
        output.line(f"{view.key} {output.as_text(view.value)}".rstrip(), output.key(view), as_json=options.json)
    return 0


def _watch(client: Client, options: argparse.Namespace) -> int:
    told = 0
    if options.follow:
        if options.since:
            raise InvalidRequest("--follow begins with what is there now, --since at a revision; expected one of them")
        for each in client.files.follow(options.start, options.end, prefix=options.prefix):
            if isinstance(each, Snapshot):
                for view in each.keys:
                    plain = f"{each.revision} is {view.key} {output.as_text(view.value)}".rstrip()
                    output.line(plain, {"revision": each.revision, "is": output.key(view)}, as_json=options.json)
                continue
            output.change(each, as_json=options.json)
            told += 1
            if told == options.count:
                break
        return 0
    for change in client.files.watch(options.start, options.end, prefix=options.prefix, since=options.since):
        output.change(change, as_json=options.json)
        told += 1
        if told == options.count:
            break
    return 0
