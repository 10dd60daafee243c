"""Programs of many kinds, each some milliseconds long, by which the prices of fuel are judged; see `bench/fuel.py`."""

from __future__ import annotations

from measures.guest_speed import Kernel

_NUMPY = "import numpy as np\nr = np.random.default_rng(1)\n"


def _numpy(name: str, setup: str, work: str) -> Kernel:
    return Kernel(f"numpy: {name}", f"{_NUMPY}{setup}\ndef run():\n    {work}\n")


SEVENTEEN = (
    Kernel(
        "loop", "def run():\n    t = 0\n    for i in range(200_000):\n        t += i * i % 7\n    return t"
    ),
    Kernel(
        "method",
        "class P:\n    def __init__(self, x): self.x = x\n    def add(self, n):\n        self.x += n\n        return self.x\ndef run():\n    p = P(0)\n    for i in range(100_000): p.add(i)\n",
    ),
    Kernel(
        "sort",
        "import random\nr = random.Random(1)\nxs = [r.random() for _ in range(50_000)]\ndef run(): return sorted(xs)[0]",
    ),
    Kernel(
        "json",
        "import json\nd = [{'a': i, 'b': [i, str(i)]} for i in range(5_000)]\ndef run(): return len(json.loads(json.dumps(d)))",
    ),
    Kernel(
        "re",
        "import re\nt = 'alpha beta 123 gamma_4 ' * 4_000\np = re.compile(r'[a-z]+_?(\\d+)')\ndef run(): return len(p.findall(t))",
    ),
    Kernel("fib", "def fib(n): return n if n<2 else fib(n-1)+fib(n-2)\ndef run(): return fib(20)"),
    Kernel(
        "nbody",
        "def run():\n    x=[0.1*i for i in range(30)]\n    for s in range(30):\n        for i in range(30):\n            a=0.0\n            for j in range(30):\n                d=x[i]-x[j]\n                a+=d/(d*d+1.0)\n            x[i]+=a*1e-3\n",
    ),
    Kernel(
        "dict",
        "def run():\n    d={}\n    for i in range(60_000):\n        d[i%5000]=d.get(i%5000,0)+1\n    return len(d)",
    ),
    Kernel("str", 'def run():\n    return len("".join([str(i)+"x" for i in range(40_000)]).split("x"))'),
    Kernel(
        "numpy: small",
        "import numpy as np\na = np.arange(10.0)\ndef run():\n    b = a\n    for _ in range(2_500): b = b * 0.5 + a\n",
    ),
    Kernel(
        "numpy: sin", "import numpy as np\na = np.arange(500_000.0)\ndef run(): return float(np.sin(a)[1])"
    ),
    Kernel(
        "numpy: sum",
        "import numpy as np\na = np.arange(2_000_000.0)\ndef run():\n    for _ in range(5): a.sum()\n",
    ),
    Kernel(
        "numpy: fft",
        "import numpy as np\na = np.sin(np.arange(2.0**16))\ndef run(): return float(abs(np.fft.fft(a)[3]))",
    ),
    Kernel(
        "numpy: sort",
        "import numpy as np\na = np.random.default_rng(1).random(200_000)\ndef run(): return float(np.sort(a)[0])",
    ),
    Kernel(
        "numpy: matmul",
        "import numpy as np\na = np.random.default_rng(1).random((200, 200))\ndef run(): return float((a @ a)[0, 0])",
    ),
    Kernel(
        "numpy: solve",
        "import numpy as np\nr = np.random.default_rng(1)\na, b = r.random((200, 200)), r.random(200)\ndef run(): return float(np.linalg.solve(a,b)[0])",
    ),
    Kernel(
        "numpy: arith",
        "import numpy as np\na = np.arange(1_000_000.0)\ndef run():\n    for _ in range(4): b=a*2.0+1.0\n",
    ),
)
"""Those that the published figures are about: nine of plain Python, eight of numpy."""

OTHERS = (
    Kernel("empty loop", "def run():\n    for i in range(200_000): pass\n"),
    Kernel("while", "def run():\n    i=0\n    while i<150_000: i+=1\n"),
    Kernel(
        "float arith", "def run():\n    x=0.5\n    for i in range(100_000): x=x*3.7*(1.0-x)\n    return x"
    ),
    Kernel("listcomp", "def run(): return sum([x*2 for x in range(100_000)])"),
    Kernel(
        "attr",
        "class A: pass\nA.x=1\ndef run():\n    a=A(); a.y=2\n    t=0\n    for i in range(100_000): t+=a.x+a.y",
    ),
    Kernel(
        "closure",
        "def mk():\n    n=0\n    def f(k):\n        nonlocal n\n        n+=k\n        return n\n    return f\ndef run():\n    f=mk()\n    for i in range(60_000): f(i)",
    ),
    Kernel("strcat", 'def run():\n    s=""\n    for i in range(30_000): s+="ab%d"%i\n    return len(s)'),
    Kernel(
        "setops",
        "def run():\n    a=set(range(30_000)); b=set(range(15_000,45_000))\n    return len(a&b)+len(a|b)",
    ),
    Kernel(
        "tuple sort key",
        "xs=[(i*7919)%10007 for i in range(20_000)]\ndef run(): return sorted(xs,key=lambda n:-n)[0]",
    ),
    Kernel("sort ints", "xs=[(i*7919)%100003 for i in range(100_000)]\ndef run(): return sorted(xs)[0]"),
    Kernel(
        "exceptions",
        "def run():\n    for i in range(20_000):\n        try: raise ValueError\n        except ValueError: pass",
    ),
    Kernel(
        "generator", "def g(n):\n    for i in range(n): yield i\ndef run():\n    for _ in g(100_000): pass"
    ),
    Kernel("sum range", "def run(): return sum(range(500_000))"),
    Kernel(
        "deque repeat",
        "import itertools,collections\ndef run(): collections.deque(itertools.repeat(0,3_000_000),maxlen=0)",
    ),
    Kernel("in count", "import itertools\ndef run(): return 200_000 in itertools.count()"),
    Kernel("find long", 'a="a"*10**5\nb=a*8\nc=a+"b"\ndef run(): return b.find(c)'),
    Kernel("bytes find", 'a=b"ab"*10**5\ndef run(): return sum(a.find(b"b%d"%i) for i in range(30))'),
    Kernel("hash texts", 'def run():\n    for i in range(10): hash("a"*(1<<19)+str(i))'),
    Kernel("zlib zeros", "import zlib\na=bytes(1<<20)\ndef run(): zlib.compress(a,9)"),
    Kernel(
        "zlib text",
        'import zlib\na=b"".join(b"%d,%d;"%(i*i,i*7) for i in range(10_000))\ndef run(): zlib.decompress(zlib.compress(a))',
    ),
    Kernel(
        "gc", "import gc\na=[[n] for n in range(60_000)]\ndef run():\n    for _ in range(3): gc.collect()"
    ),
    Kernel("compile", 'src="x = 1\\n"*3000\ndef run(): compile(src,"f","exec")'),
    Kernel(
        "compile2",
        'src="def f(a, b=1):\\n    for i in range(a):\\n        b += a[i] * 2 if i else [j for j in range(i)]\\n    return {b: a}\\n"*60\ndef run(): compile(src,"f","exec")',
    ),
    Kernel("bigpow", "def run(): return pow(3,20_000)"),
    Kernel("bigmul", "a=(1<<200_000)-1\ndef run(): return a*a"),
    Kernel("bigmod", "a=(1<<20_000)-7\nb=(1<<9_000)+3\ndef run():\n    for i in range(5): a%b"),
    Kernel("re backtrack", 'import re\ndef run(): return re.match(r"(a+)+$","a"*18+"b")'),
    Kernel(
        "lru max",
        "import functools\n@functools.lru_cache(maxsize=0)\ndef g(n): return 0 if n==0 else max([n,n],key=lambda m:g(m-1))\ndef run(): return g(11)",
    ),
    Kernel("memfill", "def run():\n    for _ in range(4): bytearray(8<<20)"),
    Kernel("memcopy", "a=bytearray(8<<20)\ndef run():\n    for _ in range(4): bytes(a)"),
    Kernel("list copy", "a=list(range(300_000))\ndef run():\n    for _ in range(5): b=a[:]"),
    Kernel("list append", "def run():\n    a=[]\n    for i in range(100_000): a.append(i)"),
    Kernel(
        "dataclass",
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x:int\n    y:int\ndef run():\n    return sum(P(i,i).x for i in range(20_000))",
    ),
    Kernel(
        "str methods",
        'def run():\n    t=0\n    for i in range(30_000): t+=len("Hello, World".lower().replace("l","L").strip())\n    return t',
    ),
    Kernel("format", 'def run(): return len([f"{i:05d}|{i/7:.3f}" for i in range(10_000)])'),
    Kernel(
        "decimal",
        "from decimal import Decimal as D\ndef run():\n    x=D(1)\n    for i in range(5_000): x=x/D(3)+D(i)",
    ),
    Kernel(
        "fractions",
        "from fractions import Fraction as F\ndef run():\n    x=F(0)\n    for i in range(1,400): x+=F(1,i)",
    ),
    Kernel(
        "heapq",
        "import heapq\nxs=[(i*7919)%10007 for i in range(20_000)]\ndef run():\n    h=[]\n    for x in xs: heapq.heappush(h,x)\n    while h: heapq.heappop(h)",
    ),
    Kernel(
        "random",
        "import random\nr=random.Random(1)\ndef run(): return sum(r.random() for _ in range(50_000))",
    ),
    Kernel(
        "math",
        "import math\ndef run():\n    t=0.0\n    for i in range(50_000): t+=math.sin(i)*math.sqrt(i)\n    return t",
    ),
    Kernel(
        "sieve",
        "def run():\n    n=300_000\n    s=bytearray([1])*n\n    for i in range(2,548):\n        if s[i]: s[i*i::i]=bytes(len(range(i*i,n,i)))\n    return sum(s)",
    ),
    Kernel(
        "matrix py",
        "def run():\n    n=30\n    a=[[i*j for j in range(n)] for i in range(n)]\n    return [[sum(x*y for x,y in zip(r,c)) for c in zip(*a)] for r in a][3][4]",
    ),
    Kernel(
        "queens",
        "def run():\n    def go(n,row,c,d,e):\n        if row==n: return 1\n        t=0\n        for i in range(n):\n            if not (c>>i&1 or d>>(row+i)&1 or e>>(row-i+n)&1): t+=go(n,row+1,c|1<<i,d|1<<(row+i),e|1<<(row-i+n))\n        return t\n    return go(6,0,0,0,0)",
    ),
    Kernel(
        "json loads",
        'import json\nd=json.dumps([{"a":i,"b":[i,str(i)]} for i in range(5_000)])\ndef run(): return len(json.loads(d))',
    ),
    Kernel(
        "pickle",
        'import pickle\nd=[{"a":i,"b":[i,str(i)]} for i in range(5_000)]\ndef run(): return len(pickle.loads(pickle.dumps(d)))',
    ),
    Kernel(
        "csv",
        'import csv,io\nt="\\n".join(",".join(str(i*j) for j in range(8)) for i in range(3_000))\ndef run(): return sum(1 for _ in csv.reader(io.StringIO(t)))',
    ),
    Kernel("hashlib", "import hashlib\na=bytes(1<<20)\ndef run(): return hashlib.sha256(a).hexdigest()"),
    Kernel(
        "enumerate zip",
        "xs=list(range(60_000))\ndef run():\n    t=0\n    for i,(a,b) in enumerate(zip(xs,xs)): t+=a+b+i\n    return t",
    ),
    Kernel("map filter", "def run(): return sum(map(int,filter(None,map(str,range(30_000)))))"),
    Kernel(
        "counter",
        'from collections import Counter\nt="the quick brown fox jumps over the lazy dog "*2000\ndef run(): return Counter(t.split()).most_common(1)',
    ),
    _numpy("sort f4", 'a=r.random(200_000,dtype="f4")', "np.sort(a)"),
    _numpy("argsort", "a=r.random(100_000)", "np.argsort(a)"),
    _numpy("max", "a=r.random(2_000_000)", "a.max(),a.argmax()"),
    _numpy("exp", "a=r.random(300_000)", "np.exp(a)"),
    _numpy("log", "a=r.random(300_000)", "np.log(a)"),
    _numpy("tanh", "a=r.random(300_000)", "np.tanh(a)"),
    _numpy("power", "a=r.random(200_000)", "a**1.5"),
    _numpy("sqrt", "a=r.random(1_000_000)", "np.sqrt(a)"),
    _numpy("div", "a=r.random(1_000_000)", "1.0/(a+1.0)"),
    _numpy("partition", "a=r.random(300_000)", "np.partition(a,150_000)"),
    _numpy("median", "a=r.random(300_000)", "np.median(a)"),
    _numpy("random", "", "r.random(500_000)"),
    _numpy("normal", "", "r.standard_normal(300_000)"),
    _numpy("integers", "", "r.integers(0,1000,300_000)"),
    _numpy("sgemm", 'a=r.random((300,300),dtype="f4")', "a@a"),
    _numpy("matmul500", "a=r.random((500,500))", "a@a"),
    Kernel(
        "numpy: matvec",
        "import numpy as np\nr=np.random.default_rng(1)\na=r.random((1000,1000)); b=r.random(1000)\ndef run():\n    for _ in range(5): a@b",
    ),
    Kernel(
        "numpy: vecmat",
        "import numpy as np\nr=np.random.default_rng(1)\na=r.random((1000,1000)); b=r.random(1000)\ndef run():\n    for _ in range(5): b@a",
    ),
    Kernel(
        "numpy: dot",
        "import numpy as np\nr=np.random.default_rng(1)\na=r.random(100_000)\ndef run():\n    for _ in range(30): a@a",
    ),
    _numpy("int matmul", "a=r.integers(0,9,(120,120))", "a@a"),
    _numpy("eig", "a=r.random((80,80))", "np.linalg.eigvals(a)"),
    _numpy("svd", "a=r.random((80,80))", "np.linalg.svd(a)"),
    _numpy("inv", "a=r.random((200,200))", "np.linalg.inv(a)"),
    _numpy("chol", "a=r.random((200,200)); a=a@a.T+np.eye(200)", "np.linalg.cholesky(a)"),
    _numpy("cumsum", "a=r.random(1_000_000)", "np.cumsum(a)"),
    _numpy("sum axis0", "a=r.random((1000,1000))", "a.sum(0)"),
    _numpy("sum axis1", "a=r.random((1000,1000))", "a.sum(1)"),
    _numpy("fancy", "a=r.random(300_000); i=r.integers(0,300_000,300_000)", "a[i]"),
    _numpy("mask", "a=r.random(500_000)", "a[a>0.5]"),
    _numpy("where", "a=r.random(500_000)", "np.where(a>0.5,a,0.0)"),
    _numpy("astype", "a=r.random(1_000_000)*100", 'a.astype("i4"),a.astype("f4")'),
    _numpy("transpose copy", "a=r.random((700,700))", "a.T.copy()"),
    _numpy("bincount", "a=r.integers(0,1000,300_000)", "np.bincount(a)"),
    _numpy("unique", "a=r.integers(0,1000,200_000)", "np.unique(a)"),
    _numpy("searchsorted", "a=np.sort(r.random(100_000)); b=r.random(50_000)", "np.searchsorted(a,b)"),
    _numpy("convolve", "a=r.random(20_000); b=r.random(100)", "np.convolve(a,b)"),
    _numpy("diff", "a=r.random(1_000_000)", "np.diff(a)"),
    _numpy("einsum", "a=r.random((60,60,60)); b=r.random((60,60))", 'np.einsum("ijk,kl->ijl",a,b)'),
    _numpy("i4 arith", 'a=r.integers(0,99,1_000_000,dtype="i4")', "a*3+1"),
    _numpy("u1 arith", 'a=r.integers(0,99,2_000_000,dtype="u1")', "a+a"),
    _numpy("int div", "a=r.integers(1,99,300_000)", "a//7,a%7"),
    _numpy("complex", "a=r.random(300_000)+1j", "a*a"),
    Kernel(
        "numpy: small2",
        "import numpy as np\nr=np.random.default_rng(1)\na=r.random(3); b=r.random(3)\ndef run():\n    for _ in range(1000): np.dot(a,b); a.sum(); np.cross(a,b)",
    ),
    Kernel(
        "numpy: scalar",
        "import numpy as np\nr=np.random.default_rng(1)\na=r.random(100)\ndef run():\n    t=0.0\n    for _ in range(100):\n        for x in a: t+=x*x\n    return t",
    ),
    Kernel(
        "numpy: index",
        "import numpy as np\nr=np.random.default_rng(1)\na=r.random((50,50))\ndef run():\n    t=0.0\n    for i in range(50):\n        for j in range(50):\n            t+=a[i,j]; a[i,j]=t*0.001\n    return t",
    ),
    _numpy("pairwise dist", "a=r.random((200,3))", "np.sqrt(((a[:,None]-a[None])**2).sum(-1))"),
    _numpy("bigcopy", "a=r.random(2_000_000)", "a.copy()"),
    Kernel(
        "numpy: zeros",
        "import numpy as np\nr=np.random.default_rng(1)\ndef run():\n    for _ in range(5): np.zeros(1_000_000).fill(1.0)",
    ),
    _numpy("strings", "a=np.array([str(i) for i in range(20_000)])", "np.sort(a); (a==a[::-1]).sum()"),
    Kernel(
        "scipy minimize",
        'import numpy as np, scipy.optimize as so\ndef f(x): return ((1-x[:-1])**2).sum()+100*((x[1:]-x[:-1]**2)**2).sum()\ndef run(): return so.minimize(f,np.zeros(4),method="Nelder-Mead",options={"maxiter":100}).fun',
    ),
    Kernel(
        "scipy solve_ivp",
        "import numpy as np, scipy.integrate as si\ndef run(): return si.solve_ivp(lambda t,y:[y[1],-y[0]],(0,5),[0,1]).y[0,-1]",
    ),
    Kernel(
        "scipy interp",
        "import numpy as np, scipy.interpolate as si\nx=np.linspace(0,1,5000)\nc=si.CubicSpline(x,np.sin(x))\ny=np.linspace(0,1,100_000)\ndef run(): return c(y)[3]",
    ),
    Kernel(
        "scipy sparse",
        'import numpy as np, scipy.sparse as ss\na=ss.random(3000,3000,0.01,format="csr",rng=1)\nb=np.ones(3000)\ndef run():\n    for _ in range(10): a@b',
    ),
    Kernel(
        "scipy spatial",
        "import numpy as np, scipy.spatial as ss\na=np.random.default_rng(1).random((2000,3))\ndef run(): return ss.cKDTree(a).query(a,k=3)[0][0,1]",
    ),
    Kernel(
        "scipy special",
        "import numpy as np, scipy.special as ss\na=np.random.default_rng(1).random(100_000)+1\ndef run(): ss.gammaln(a),ss.erf(a)",
    ),
)
"""Those that keep the prices from being made for seventeen programs."""
