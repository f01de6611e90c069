"""Reads the modules of a Rust crate: which files there are, what they define, and which paths they name.

Knows as much of Rust as scripts/layers needs: comments and literals are blanked out, every other position stays. Modules are
found by the place of their file and as inline `mod name { }`. There is no `#[path]` and no macro that defines an item.
"""

import re
from bisect import bisect

NOT_CODE = re.compile(
    r"""(?P<line>//[^\n]*)
      | (?P<block>/\*)
      | \b[bc]?r(?P<hashes>\#*)".*?"(?P=hashes)       # raw string
      | "(?:[^"\\]|\\.)*"                             # string
      | '(?:[^'\\\n]|\\(?:x..|u\{[^}]*\}|.))'         # character; a lifetime has no closing quote
    """,
    re.VERBOSE | re.DOTALL,
)
# `#[serde(with = "crate::module")]` names a module in a string.
PATH_IN_QUOTES = re.compile(r'"(?:crate|super|self)(?:::\w+)+"')
BEFORE_A_PATH = re.compile(r"\b(?:\w+_with|with|default|skip_serializing_if)\s*=\s*$")
ITEM = re.compile(r"\b(?:fn|struct|enum|union|trait|type|static|macro_rules!|const(?!\s+(?:unsafe|fn)\b))\s+(?:mut\s+)?(\w+)")
INLINE = re.compile(r"\bmod\s+(\w+)\s*\{")
DECLARED = re.compile(r"\bmod\s+(\w+)\s*;")
USE = re.compile(r"(?P<visibility>\bpub(?:\s*\([^)]*\))?\s+)?\buse\s+(?P<tree>[^;]+);")
PATH = re.compile(r"(?<![\w:])(?<!::\s)\w+(?:\s*::\s*\w+)+")
ONLY_TESTS = re.compile(r"#\s*\[\s*cfg\s*\(\s*(?:test\b|all\s*\(\s*test\b)")


def blank(text):
    return re.sub(r"[^\n]", " ", text)


def code_of(text):
    """`text` with comments and literals blanked out, every line and column where it was."""
    out, at = [], 0
    while found := NOT_CODE.search(text, at):
        start, end = found.span()
        if found["block"]:
            end = end_of_block_comment(text, start)
        quoted = PATH_IN_QUOTES.fullmatch(text, start, end) and BEFORE_A_PATH.search(text[:start])
        out += text[at:start], text[start:end].replace('"', " ") if quoted else blank(text[start:end])
        at = end
    return "".join(out) + text[at:]


def end_of_block_comment(text, start):
    depth = 0
    for mark in re.finditer(r"/\*|\*/", text[start:]):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return start + mark.end()
    return len(text)


def end_of_brackets(code, start):
    """Where the bracket closes that was opened just before `start`."""
    depth = 1
    for bracket in re.compile(r"[][{}()]").finditer(code, start):
        depth += 1 if bracket[0] in "{[(" else -1
        if depth == 0:
            return bracket.start()
    return len(code)


def end_of_item(code, at):
    """The end of the item that begins at `at`, its attributes included: a semicolon or a closing brace."""
    while attribute := re.compile(r"\s*#\s*\[").match(code, at):
        at = end_of_brackets(code, attribute.end()) + 1
    while found := re.compile(r"[][{}();]").search(code, at):
        if found[0] == ";":
            return found.end()
        if found[0] in "}])":
            return found.start()
        at = end_of_brackets(code, found.end()) + 1
        if found[0] == "{":
            return at
    return len(code)


def without_tests(code):
    """The code without what `#[cfg(test)]` stands before, and the names of the modules in files that it stands before."""
    modules, at = set(), 0
    while found := ONLY_TESTS.search(code, at):
        at = end_of_item(code, found.start())
        modules.update(DECLARED.findall(code, found.start(), at))
        code = code[: found.start()] + blank(code[found.start() : at]) + code[at:]
    return code, modules


class Source:
    """One file."""

    def __init__(self, name, module_path, code):
        self.name, self.path, self.code = name, module_path, code
        self.line_starts = [0] + [newline.end() for newline in re.finditer("\n", code)]

    def line(self, at):
        return bisect(self.line_starts, at)


class Use:
    """One name that a `use` brings in; `name` is `*` for all of them, `_` for a trait's methods."""

    def __init__(self, module, at, segments, name, exported):
        self.module, self.at, self.segments, self.name, self.exported = module, at, segments, name, exported


class Module:
    """A module: a file, or a part of one."""

    def __init__(self, path, source, parent, code):
        self.path, self.source, self.parent = path, source, parent
        self.children, self.items, self.uses = {}, {}, []
        self.own = code  # of this module alone: without its inline modules, uses and declarations of modules

    def reads(self):
        """Takes its items and uses out of its code."""
        depth, top = 0, []
        for mark in re.finditer(r"[{}]|[^{}]+", self.own):
            depth += {"{": 1, "}": -1}.get(mark[0], 0)
            top.append(mark[0] if depth == 0 else blank(mark[0]))
        self.items = {item[1]: item.start(1) for item in ITEM.finditer("".join(top))}
        for use in USE.finditer(self.own):
            for at, segments, name in leaves(self.own, use.start("tree"), use.end("tree"), []):
                self.uses.append(Use(self, at, segments, name, bool(use["visibility"])))
        for pattern in (USE, DECLARED):
            self.own = pattern.sub(lambda found: blank(found[0]), self.own)

    def names(self, name):
        """Where its code names this, apart from the `use` and from fields and methods; None if nowhere."""
        found = re.compile(rf"(?<!\w)(?:(?<!\.)|(?<=\.\.)){re.escape(name)}\b").search(self.own)
        return found and found.start()


def leaves(code, at, end, before):
    """(position, segments, name) of each leaf of the use tree in code[at:end]."""
    segments = list(before)
    while at < end:
        token = re.compile(r"\s*(::|\{|\w+|\*|.)\s*", re.DOTALL).match(code, at)
        place, at = token.start(1), token.end()
        if token[1] == "{":
            close = end_of_brackets(code, token.end(1))
            for part_at, part_end in parts(code, token.end(1), close):
                yield from leaves(code, part_at, part_end, segments)
            return
        if token[1] == "::":
            if not segments:
                return  # `::name` is another crate
            continue
        if renamed := re.compile(r"as\s+(\w+)").match(code, at, end):
            yield place, [*segments, token[1]] if token[1] != "self" or not segments else segments, renamed[1]
            return
        if at >= end:
            if token[1] == "self" and segments:
                yield place, segments, segments[-1]
            else:
                yield place, segments if token[1] == "*" else [*segments, token[1]], token[1]
            return
        segments.append(token[1])


def parts(code, at, end):
    """The parts of a list that commas divide."""
    start, depth = at, 0
    for mark in re.compile(r"[{},]").finditer(code, at, end):
        depth += {"{": 1, "}": -1}.get(mark[0], 0)
        if mark[0] == "," and depth == 0:
            yield start, mark.start()
            start = mark.end()
    if code[start:end].strip():
        yield start, end


class Crate:
    """All modules of src/. `files` has the text of each file by its path below src/, such as `store/mod.rs`."""

    def __init__(self, files, crate_name, tests):
        self.names_of_root = {"crate", crate_name}
        self.sources, self.modules = [], []
        self.root = None
        codes, only_tests = {}, set()
        for name, text in files.items():
            path = module_path(name)
            codes[name] = code_of(text)
            if not tests:
                codes[name], test_modules = without_tests(codes[name])
                only_tests |= {(*path, module) for module in test_modules}
        by_path = {}
        for name in sorted(files, key=lambda name: (len(module_path(name)), name != "lib.rs", name)):
            path = module_path(name)
            if any(path[:length] in only_tests for length in range(1, len(path) + 1)):
                continue
            source = Source(name, path, codes[name])
            self.sources.append(source)
            # What main.rs declares is a child of the root, beside what lib.rs declares.
            parent = by_path.get(path[:-1], self.root) if path else None
            module = by_path[path] = self.add(Module(path, source, parent, source.code))
            self.root = self.root or module
        for module in self.modules:
            module.reads()

    def add(self, module):
        self.modules.append(module)
        if module.parent:
            module.parent.children[module.path[-1]] = module
        while found := INLINE.search(module.own):
            end = end_of_brackets(module.own, found.end())
            inner = blank(module.own[: found.end()]) + module.own[found.end() : end]
            module.own = module.own[: found.start()] + blank(module.own[found.start() : end + 1]) + module.own[end + 1 :]
            self.add(Module((*module.path, found[1]), module.source, module, inner))
        return module

    def lookup(self, module, name, last, seen):
        """What `name` is in `module`: a Module, (Module, name) of an item, or None. The last of a path is rather an item."""
        if (module, name, last) in seen:
            return None
        seen = seen | {(module, name, last)}
        child, item = module.children.get(name), (module, name) if name in module.items else None
        if found := (item or child) if last else (child or item):
            if not (last and found is child and any(use.name == name for use in module.uses)):
                return found
        for use in module.uses:
            if use.name == name and (found := self.resolve(module, use.segments, seen, last)):
                return found
        for use in module.uses:
            if use.name == "*" and isinstance(target := self.resolve(module, use.segments, seen, False), Module):
                if found := self.lookup(target, name, last, seen):
                    return found
        return child

    def resolve(self, module, segments, seen=frozenset(), last=True):
        """What a path is that stands in `module`: a Module, (Module, name) of an item, or None if it is of another crate."""
        here = module
        for index, segment in enumerate(segments):
            if index == 0 and segment in self.names_of_root:
                here = self.root
            elif segment == "self" and index == 0:
                continue
            elif segment == "super":
                here = here.parent if here.path and here.path != ("main",) else None
            else:
                here = self.lookup(here, segment, last and index == len(segments) - 1, seen)
            if not isinstance(here, Module):
                return here
        return here

    def is_inside(self, segments):
        return segments[0] in self.names_of_root | {"self", "super"}

    def first_below_root(self, module, segments):
        """The top module that a path names when it goes through the root, or None."""
        ups = next((at for at, segment in enumerate(segments) if segment not in self.names_of_root | {"self", "super"}), 0)
        if ups and self.resolve(module, segments[:ups]) is self.root and segments[ups] in self.root.children:
            return segments[ups]
        return None

    def paths(self, module):
        """(position, segments, name or None) of what a module names: each leaf of its uses, each path in its code."""
        for use in module.uses:
            yield use.at, use.segments, use
        for path in PATH.finditer(module.own):
            yield path.start(), re.split(r"\s*::\s*", path[0]), None


def module_path(name):
    parts = tuple(name.removesuffix(".rs").split("/"))
    return () if parts == ("lib",) else parts[:-1] if parts[-1] == "mod" else parts
