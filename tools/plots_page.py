"""Make `dvc plots show` work without network: `python tools/plots_page.py`.

DVC's page loads Vega from a CDN and stays blank without one. This writes a page template with Vega inside (0.9 MB, taken from
the installed vl-convert) to .dvc/plots/page.html, and names it in .dvc/config.local. Git ignores both: they belong to the
checkout. The bundle is for Vega-Lite 5, which DVC's templates are written in.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PAGE = Path(".dvc/plots/page.html")
VEGA_LITE = "5.21"

TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{refresh_tag}
<title>Dagobert: plots</title>
<style>
body { font: 16px/1.4 system-ui, sans-serif; margin: 2rem; color: #1c1f23; background: #fff; }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 36rem), 1fr)); gap: 2rem; }
main > div { overflow-x: auto; }
</style>
<script>
BUNDLE
</script>
</head>
<body>
<h1>Dagobert: plots</h1>
<main>
{plot_divs}
</main>
</body>
</html>
"""


def page() -> str:
    """The template, with Vega, Vega-Lite and Vega-Embed inside."""
    import vl_convert

    bundle = vl_convert.javascript_bundle(None, vl_version=VEGA_LITE)  # type: ignore[arg-type]  # None: Vega alone
    # DVC puts scripts and plots where it finds these words in braces, and a closing tag would end our script early.
    for word in ("{scripts}", "{plot_divs}", "{refresh_tag}"):
        assert word not in bundle, word
    return TEMPLATE.replace("BUNDLE", bundle.replace("</script", "<\\/script"))


def main() -> int:
    """Write the template and tell DVC."""
    try:
        text = page()
    except ImportError:
        print("plots page: vl-convert-python is not installed, so `dvc plots show` will need network", file=sys.stderr)
        return 0
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(text, encoding="utf-8")
    name = PAGE.relative_to(".dvc").as_posix()
    return subprocess.run(
        [sys.executable, "-m", "dvc", "config", "--quiet", "--local", "plots.html_template", name], check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
