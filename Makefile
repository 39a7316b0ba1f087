# `demo` and `test` set themselves up in .venv; that is skipped while pyproject.toml and constraints.txt are unchanged.
# With another Python, in an environment of its own: make test PYTHON=python3.13 VENV=.venv-3.13
PYTHON ?= python3
VENV ?= .venv
PHOTO := outputs/astronaut.png
VIDEO := outputs/demo.mp4
INSTALLED := $(VENV)/.installed
DOCS := NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

.PHONY: demo docs test test-browser test-lowest test-wheel

demo: $(INSTALLED) $(PHOTO)
	$(VENV)/bin/fantasyid generate $(PHOTO) --out $(VIDEO) --seed 0 --overwrite \
		--prompt "A woman smiles and turns the head to the left, in front of a plain blue background."
	$(VENV)/bin/fantasyid evaluate identity --reference $(PHOTO) --video $(VIDEO)
	@echo "The video is $(CURDIR)/$(VIDEO), its contact sheet $(CURDIR)/$(VIDEO:.mp4=.jpg)."

docs: $(INSTALLED)
	$(DOCS)
	@echo "The documentation is $(CURDIR)/site/index.html; search in it needs a server: $(PYTHON) -m http.server -d site"

test: $(INSTALLED)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(DOCS)
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -n 2

# The pages in a real browser.
test-browser: $(INSTALLED)
	FANTASYID_BROWSER=$$(command -v chromium) OMP_NUM_THREADS=1 $(VENV)/bin/pytest tests/end_to_end/test_*_browser.py

# The tests with the lowest versions that pyproject.toml allows; set up anew each time, about 8 GB.
test-lowest:
	$(PYTHON) -m venv --clear .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct --editable '.[dev]'
	FANTASYID_LOWEST=1 OMP_NUM_THREADS=1 .venv-lowest/bin/pytest -n 2

# The wheel, installed into an empty environment of PYTHON elsewhere: doctor, generate, the page, the server. Minutes; 2 GB
# with PyTorch for CPUs, 6 GB with CUDA.
test-wheel: $(INSTALLED) $(PHOTO)
	rm -rf outputs/wheel
	$(VENV)/bin/python -m pip wheel --quiet --no-deps --wheel-dir outputs/wheel .
	$(PYTHON) tests/installed.py outputs/wheel/*.whl $(PHOTO) constraints.txt

$(PHOTO): | $(INSTALLED)
	mkdir -p outputs
	$(VENV)/bin/python -c 'from skimage import data, io; io.imsave("$(PHOTO)", data.astronaut())'

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
