"""For mkdocs: the pictures and pages beside docs/ that pages link to."""

from mkdocs.structure.files import File

SOURCE = "https://github.com/fastkan/fastkan/blob/main/"
PLOTS = "bench/results/cpu/"


def on_files(files, config):
    """The plots of the benchmarks become part of the site."""
    for name in ("layers.png", "scaling.png"):
        files.append(File.generated(config, f"images/{name}", abs_src_path=PLOTS + name))
    return files


def on_page_markdown(markdown, page, config, files):
    """What is not in docs/ is linked where its source is."""
    up = "../" * (page.file.src_uri.count("/") + 1)
    markdown = markdown.replace(f"({up}{PLOTS}layers.png)", f"({up[3:]}images/layers.png)")
    markdown = markdown.replace(f"({up}{PLOTS}scaling.png)", f"({up[3:]}images/scaling.png)")
    for folder in ("bench", "csrc", "examples", "fastkan", "tests", "README.md", "CHANGELOG.md", "CONTRIBUTING.md"):
        markdown = markdown.replace(f"({up}{folder}", f"({SOURCE}{folder}")
    return markdown
