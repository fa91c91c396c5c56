"""For mkdocs: what pages link to beside docs/; and what griffe, which reads docstrings, cannot follow."""

import re

import griffe
from mkdocs.structure.files import File

SOURCE = "https://github.com/fastkan/fastkan/blob/main/"
PLOTS = "bench/results/cpu/"


def on_files(files, config):
    """The plots of the benchmarks become part of the site."""
    for name in ("layers.png", "scaling.png"):
        files.append(File.generated(config, f"images/{name}", abs_src_path=PLOTS + name))
    return files


def on_page_markdown(markdown, page, config, files):
    """Files that are not in docs/ are linked where their source is."""
    up = "../" * (page.file.src_uri.count("/") + 1)
    markdown = markdown.replace(f"]({up}{PLOTS}layers.png", f"]({up[3:]}images/layers.png")
    markdown = markdown.replace(f"]({up}{PLOTS}scaling.png", f"]({up[3:]}images/scaling.png")
    return markdown.replace(f"]({up}", f"]({SOURCE}")


class Plain(griffe.Extension):
    """Docstrings are plain text with shapes in brackets; `from sympy import *` is not followed."""

    def on_module_members(self, *, mod, **_):
        for name in [name for name in mod.members if name.startswith("sympy")]:
            mod.del_member(name)

    def on_object(self, *, obj, **_):
        if obj.docstring:  # [l][O] is no link, "blocks.*.mlp.*" and __name__ are not emphasised
            text = re.sub(r"\](\s?)\[", r"]\1\[", obj.docstring.value)
            obj.docstring.value = re.sub(r"(?<=[\".])\*|(?<!\w)__(?=\w)", lambda m: "\\".join(["", *m[0]]), text)
