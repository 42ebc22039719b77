# make demo    the quickstart ablation, its table and its report
# make test    all tests except slow ones
# make check   lint, format, types
# make locked  .venv with the versions and hashes of requirements-lock.txt, as CI installs it: Linux, Python 3.11
# make lock    requirements-lock.txt with the newest versions, and their licences
# make audit   known vulnerabilities of these versions; asks the Python Package Index
# make docs    docs/schemes.md with its pictures, and docs/tasks.md, from the code
# make images  docs/images, pictures of the demo's report and of one of its runs; needs chromium
PYTHON ?= python3
DEMO := runs/quickstart
CORES := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
# Test workers: at most one per core, and one per 2 GB of memory (on Linux the available memory, on macOS all of it).
MEMORY = $(shell awk '/MemAvailable/ {print int($$2 / 2^21)}' /proc/meminfo 2>/dev/null || expr `sysctl -n hw.memsize` / 2147483648)
WORKERS = $(shell printf '%s\n' $(CORES) $(MEMORY) | sort -n | awk 'NR == 1 {print $$1 < 1 ? 1 : $$1}')

.PHONY: demo test check locked lock audit docs images clean
demo: .venv/installed
	.venv/bin/python sweep.py --config=configs/quickstart.py --workdir=$(DEMO) --jobs=$(CORES)
	.venv/bin/python compare.py $(DEMO)

test: .venv/installed-dev
	.venv/bin/python -m pytest -n $(WORKERS) --dist loadfile $(TESTS)

check: .venv/installed-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright

locked:
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --require-hashes -r requirements-lock.txt
	touch .venv/installed .venv/installed-dev

lock: .venv/installed-dev
	.venv/bin/uv pip compile --quiet --upgrade --generate-hashes --python-version 3.11 --python-platform linux \
		--custom-compile-command 'make lock' --output-file requirements-lock.txt requirements.txt requirements-dev.txt
	$(MAKE) locked
	.venv/bin/python .ci/licences.py

audit: .venv/installed-dev
	.venv/bin/uvx pip-audit --strict --disable-pip --require-hashes -r requirements-lock.txt

docs: .venv/installed-dev
	.venv/bin/python -m mha.positions --docs
	.venv/bin/python -m mha.tasks --docs

SCREENSHOT = chromium --headless --no-sandbox --hide-scrollbars --screenshot=docs/images/
PROBED := $(DEMO)/cells/position=alibi,seed=0
PROBE_PAGE := --virtual-time-budget=5000 'file://$(abspath $(PROBED))/probe.html
images: demo
	$(SCREENSHOT)report-1280.png --window-size=1280,2656 file://$(abspath $(DEMO))/report/report.html
	$(SCREENSHOT)report-390.png --window-size=390,2640 file://$(abspath $(DEMO))/report/report.html
	.venv/bin/python eval.py --workdir='$(PROBED)' --probe --lengths=14,40 --ablate
	$(SCREENSHOT)probe-1280.png --window-size=1280,2394 $(PROBE_PAGE)#layer=1&head=5&without=1'
	$(SCREENSHOT)probe-390.png --window-size=390,1385 $(PROBE_PAGE)#view=lines&b=none&query=16&head=3'
	.venv/bin/python -c "from PIL import Image; import glob; [Image.open(path).convert('RGB').quantize(256, dither=0).save(path, optimize=True) for path in glob.glob('docs/images/*.png')]"

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet -r requirements.txt
	touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	.venv/bin/python -m pip install --quiet -r requirements.txt -r requirements-dev.txt
	touch $@

clean:
	rm -rf .venv
