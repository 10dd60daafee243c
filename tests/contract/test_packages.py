"""Every package that an image is said to have is imported and used."""

from __future__ import annotations

import pytest

import evocell
from evocell import Limits

USES = {
    "attrs": "import attr, attrs\n@attrs.frozen\nclass P:\n    x: int\nvalue = attrs.asdict(P(3))['x']",
    "beautifulsoup4": "import bs4\nvalue = int(bs4.BeautifulSoup('<p>3</p>', 'html.parser').p.text)",
    "charset-normalizer": "import charset_normalizer\nvalue = len(str(charset_normalizer.from_bytes('äöü'.encode()).best()))",
    "cloudpickle": "import cloudpickle, pickle\nvalue = len(pickle.loads(cloudpickle.dumps([1, 2, 3])))",
    "contourpy": "import contourpy\nvalue = len(contourpy.contour_generator(z=[[0, 1], [1, 2]]).lines(0.5)) + 2",
    "cycler": "import cycler\nvalue = len(cycler.cycler(c='rgb'))",
    "defusedxml": "import defusedxml.ElementTree as et\nvalue = int(et.fromstring('<a>3</a>').text)",
    "et_xmlfile": "import et_xmlfile, io\nb = io.BytesIO()\nwith et_xmlfile.xmlfile(b) as f:\n    with f.element('abc'): pass\nvalue = b.getvalue().find(b'c')",
    "fonttools": "import fontTools.ttLib, matplotlib.font_manager as m\nvalue = 3 if fontTools.ttLib.TTFont(m.findfont('DejaVu Sans'))['head'].unitsPerEm else 0",
    "formulaic": "import formulaic, pandas as pd\nvalue = formulaic.model_matrix('x', pd.DataFrame({'x': [1., 2, 3]})).shape[0]",
    "html5lib": "import html5lib\nvalue = len(html5lib.parse('<p>3', namespaceHTMLElements=False)) + 1",
    "interface_meta": "import interface_meta\nclass A(metaclass=interface_meta.InterfaceMeta):\n    x = 3\nvalue = A.x",
    "jinja2": "import jinja2\nvalue = int(jinja2.Template('{{ x + 1 }}').render(x=2))",
    "joblib": "import joblib\nvalue = sum(joblib.Parallel(n_jobs=1)(joblib.delayed(abs)(x) for x in (-1, -2)))",
    "kiwisolver": "import kiwisolver\nx = kiwisolver.Variable('x')\ns = kiwisolver.Solver()\ns.addConstraint(x == 3)\ns.updateVariables()\nvalue = x.value()",
    "lxml": "import lxml.etree\nvalue = int(lxml.etree.fromstring('<a><b>3</b></a>').xpath('//b/text()')[0])",
    "markupsafe": "import markupsafe\nvalue = len(markupsafe.escape('<')) - 1",
    "matplotlib": "import matplotlib, io\nmatplotlib.use('Agg')\nimport matplotlib.pyplot as plt\nfig, ax = plt.subplots()\nax.plot([1, 2], label='x$^2$')\nax.legend()\nb = io.BytesIO()\nfig.savefig(b)\nvalue = b.getvalue()[1:4].find(b'P') + 3",
    "more_itertools": "import more_itertools\nvalue = len(list(more_itertools.chunked(range(6), 2)))",
    "mpmath": "import mpmath\nvalue = int(mpmath.floor(mpmath.pi))",
    "narwhals": "import narwhals, pandas as pd\nvalue = narwhals.from_native(pd.DataFrame({'a': [1, 2]}))['a'].sum()",
    "networkx": "import networkx as nx\nvalue = nx.shortest_path_length(nx.path_graph(4), 0, 3)",
    "numpy": "import numpy as np\nvalue = int(np.linalg.solve(np.eye(2), [3, 4])[0])",
    "openpyxl": "import openpyxl, io\nw = openpyxl.Workbook()\nw.active['A1'] = 3\nb = io.BytesIO()\nw.save(b)\nvalue = openpyxl.load_workbook(io.BytesIO(b.getvalue())).active['A1'].value",
    "packaging": "import packaging.version\nvalue = packaging.version.Version('3.1').major",
    "pandas": "import pandas as pd\nvalue = int(pd.DataFrame({'g': [1, 1, 2], 'v': [1, 2, 3]}).groupby('g').v.sum()[1])",
    "patsy": "import patsy, pandas as pd\nvalue = patsy.dmatrix('x', pd.DataFrame({'x': [1., 2, 3]})).shape[0]",
    "pillow": "from PIL import Image\nimport io\nb = io.BytesIO()\nImage.new('RGB', (3, 2)).save(b, 'PNG')\nvalue = Image.open(b).size[0]",
    "pyparsing": "import pyparsing\nvalue = int(pyparsing.Word(pyparsing.nums).parse_string('3')[0])",
    "pypdf": "import pypdf, io\nw = pypdf.PdfWriter()\nfor _ in range(3): w.add_blank_page(9, 9)\nb = io.BytesIO()\nw.write(b)\nvalue = len(pypdf.PdfReader(b).pages)",
    "python-dateutil": "import dateutil.parser\nvalue = dateutil.parser.parse('3 May 2020').day",
    "pyyaml": "import yaml\nvalue = yaml.safe_load(yaml.safe_dump({'a': 3}))['a']",
    "regex": "import regex\nvalue = len(regex.findall(r'\\p{L}', 'abc1'))",
    "reportlab": "import io, reportlab.pdfgen.canvas as c\nb = io.BytesIO()\np = c.Canvas(b)\np.drawString(9, 9, 'x')\np.save()\nvalue = b.getvalue().find(b'F')",
    "scikit-learn": "from sklearn.linear_model import LinearRegression as R\nfrom sklearn.datasets import load_iris\nvalue = round(float(R().fit([[0], [1]], [0, 3]).coef_[0])) if load_iris().data.shape == (150, 4) else 0",
    "scipy": "import scipy.optimize, scipy.stats, scipy.signal, scipy.sparse.linalg, scipy.spatial, scipy.integrate, scipy.interpolate, scipy.ndimage\nvalue = round(float(scipy.optimize.brentq(lambda x: x - 3, 0, 9)))",
    "seaborn": "import matplotlib, io\nmatplotlib.use('Agg')\nimport seaborn\nax = seaborn.lineplot(x=[1, 2], y=[1, 2])\nb = io.BytesIO()\nax.figure.savefig(b)\nvalue = b.getvalue()[1:4].find(b'P') + 3",
    "six": "import six\nvalue = six.PY3 + 2",
    "soupsieve": "import bs4, soupsieve\nvalue = int(soupsieve.select_one('b', bs4.BeautifulSoup('<a><b>3</b></a>', 'html.parser')).text)",
    "statsmodels": "import statsmodels.api as sm, numpy as np\nvalue = round(float(sm.OLS([0., 3, 6], sm.add_constant(np.arange(3.))).fit().params[1]))",
    "sympy": "import sympy\nx = sympy.Symbol('x')\nvalue = int(sympy.diff(3 * x, x))",
    "tabulate": "import tabulate\nvalue = len(tabulate.tabulate([[1]], headers=['a']).splitlines())",
    "threadpoolctl": "import threadpoolctl\nvalue = 3 if threadpoolctl.threadpool_info() is not None else 0",
    "tomli_w": "import tomli_w, tomllib\nvalue = tomllib.loads(tomli_w.dumps({'a': 3}))['a']",
    "toolz": "import toolz\nvalue = toolz.compose(abs, int)('-3')",
    "tqdm": "import tqdm\nvalue = sum(tqdm.tqdm([1, 2], disable=True))",
    "typing_extensions": "import typing_extensions\nvalue = 3 if typing_extensions.Self else 0",
    "tzdata": "import datetime, zoneinfo\nvalue = datetime.datetime(2020, 7, 1, tzinfo=zoneinfo.ZoneInfo('Europe/Moscow')).utcoffset().seconds // 3600",
    "webencodings": "import webencodings\nvalue = len(webencodings.decode(b'abc', 'utf-8')[0])",
    "wrapt": "import wrapt\nvalue = wrapt.ObjectProxy(3) + 0",
    "xlrd": "import xlrd\nvalue = 3 if xlrd.XLRDError else 0",
    "xlsxwriter": "import io, xlsxwriter, openpyxl\nb = io.BytesIO()\nw = xlsxwriter.Workbook(b, {'in_memory': True})\nw.add_worksheet().write(0, 0, 3)\nw.close()\nvalue = openpyxl.load_workbook(b).active['A1'].value",
    "xmltodict": "import xmltodict\nvalue = int(xmltodict.parse('<a>3</a>')['a'])",
}
"""By the name of the distribution; each snippet ends with 3 in `value`."""

LIMITS = Limits(fuel=200 * 10**9, memory_bytes=1 << 30, scratch_bytes=1 << 26)
SOURCE = "def f(text):\n    names = {}\n    exec(text, names)\n    return float(names['value'])\n"


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


@pytest.fixture(scope="module")
def engine():
    with evocell.Engine(evocell.Config.load(workers=1)) as made:
        yield made


@pytest.fixture(scope="module")
def sandbox(engine):
    """One sandbox that keeps what was imported."""
    return engine.create_sandbox(source=SOURCE, limits=LIMITS)


def test_the_list_is_that_of_the_image(engine):
    listed = engine.run(
        engine.create_sandbox(
            source="import importlib.metadata as m\ndef f(): return [d.name for d in m.distributions()]"
        ),
        "f",
    ).unwrap()

    assert {_plain(name) for name in listed} == {_plain(name) for name in USES}
    notes = engine.guest_notes()
    assert all(name in notes for name in listed)


@pytest.mark.parametrize("name", USES)
def test_a_package_is_imported_and_used(engine, sandbox, name):
    outcome = engine.run(sandbox, "f", args=(USES[name],))

    assert outcome.unwrap() == 3, outcome


@pytest.fixture(scope="module", params=[None, LIMITS], ids=["without scratch", "with scratch"])
def plotter(engine, request):
    source = (
        "import io\nimport matplotlib.pyplot as plt\nimport numpy as np\ndef f(form):\n"
        "    figure, (left, right) = plt.subplots(1, 2)\n    left.imshow(np.eye(3))\n    right.hist([1, 2, 2])\n"
        "    right.set_title('Grüße $\\\\alpha^2$')\n    out = io.BytesIO()\n"
        "    figure.savefig(out, format=form)\n    plt.close(figure)\n    return len(out.getvalue())\n"
    )
    with engine.create_sandbox(source=source, limits=request.param or Limits(memory_bytes=512 << 20)) as made:
        yield made


@pytest.mark.parametrize("form", ["png", "svg", "pdf", "raw"])
def test_plots_are_drawn_into_bytes_without_a_word(plotter, form):
    outcome = plotter.run("f", args=(form,))

    assert outcome.unwrap() > 1000
    assert outcome.stderr == ""
