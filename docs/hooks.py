"""Let the site follow links that leave docs/: the files they name become part of the site under `repository/`.

On a code host a page links to `../../benchmarks/results/learning/learning.md` and that is the file. The site holds
docs/ only, so each such file is added to it, and the link is rewritten. A missing file is left to mkdocs, which
reports the link.

A comment such as `<!-- system message: full -->` is replaced with that text, which the code generates.
"""

import posixpath
import re
import sys
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
RELATIVE = re.compile(r"(!?\[[^\]]*\]\()([^):#\s]+)(#[^)\s]*)?\)")
LINK = re.compile(r"(!?\[[^\]]*\]\()((?:\.\./)+[^):#\s]+)(#[^)\s]*)?\)")
SYSTEM_MESSAGE = re.compile(r"<!-- system message: (\w+) -->")
SCRIPT_LINES = 100  # the default of observation.script_lines
SITE = "repository"


def outside(page, link):
    """Return the path, from the repository's root, of a file that a page links to outside docs/; None for others."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))
    return path if not path.startswith(("docs/", "../")) and (ROOT / path).is_file() else None


def on_files(files, config):
    """Add every file outside docs/ that a page links to."""
    linked = set()
    for file in files.documentation_pages():
        for match in LINK.finditer(file.content_string):
            linked.add(outside(file.src_uri, match[2]))
    for path in sorted(linked - {None}):
        files.append(File.generated(config, f"{SITE}/{path}", abs_src_path=str(ROOT / path)))
    return files


def system_message(match):
    """Return the system message that a comment names, as a block of text."""
    sys.path.insert(0, str(ROOT))
    from tasks.system_text import system_text

    sys.path.remove(str(ROOT))
    return f"```text\n{system_text(match[1], SCRIPT_LINES)}\n```"


def on_page_markdown(markdown, page, config, files):
    """Insert system messages, and rewrite links that leave docs/.

    They lead to the files that `on_files` added, whose links lead back to pages of docs/.
    """
    markdown = SYSTEM_MESSAGE.sub(system_message, markdown)
    here = page.file.src_uri
    added = here.startswith(f"{SITE}/")

    def rewrite(match):
        if added:
            path = posixpath.normpath(posixpath.join(posixpath.dirname(here[len(SITE) + 1 :]), match[2]))
            target = path.removeprefix("docs/") if path.startswith("docs/") else None
        else:
            path = outside(here, match[2])
            target = path and f"{SITE}/{path}"
        if target is None:
            return match[0]
        return match[1] + posixpath.relpath(target, posixpath.dirname(here) or ".") + (match[3] or "") + ")"

    return (RELATIVE if added else LINK).sub(rewrite, markdown)
