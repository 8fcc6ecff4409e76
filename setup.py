"""Installs `influence`: command line, pipeline and core in one distribution."""

from pathlib import Path

import setuptools

setuptools.setup(
  name='influence-pipeline',
  version='0.1.0',
  description='Influence functions that scale: Arnoldi basis, Beam pipeline.',
  long_description=(Path(__file__).parent / 'README.md').read_text('utf-8'),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  python_requires='>=3.11',
  packages=setuptools.find_packages(
    include=[
      'influence_core',
      'influence_core.*',
      'pipeline',
      'pipeline.*',
      'launch',
      'launch.*',
    ]
  ),
  package_data={
    'launch': ['deploy/*', 'pages/*.j2', 'pages/*.css', 'pages/*.js']
  },
  install_requires=[
    'jax>=0.9,<0.12',
    'flax>=0.12,<0.13',
    'apache-beam>=2.70,<3',
    'tensorflow-datasets>=4.9.9,<5',
    'orbax-checkpoint>=0.11.30,<0.13',
    'gcsfs>=2025.9',
    # Used directly; most also come with the packages above.
    # Its errors say at which byte a file could not be read on.
    'array-record>=0.8,<0.9',
    'cycler>=0.12',
    'duckdb>=2,<3',
    'etils>=1.9',
    'fsspec>=2025.9',
    'google-auth>=2',
    'google-crc32c>=1.5,<2',
    'jinja2>=3.1,<4',
    'matplotlib>=3.9,<4',
    'ml_dtypes>=0.4',
    'msgpack>=1',
    'numpy>=2,<3',
    'packaging>=24',
    'pillow>=10',
    'prometheus_client>=0.20',
    'pyarrow>=16',
    'python-json-logger>=4,<5',
    'pyyaml>=6',
    'requests>=2',
    'rich>=13',
    # Arrays in bfloat16 without PyTorch.
    'safetensors>=0.8',
    # TensorFlow Datasets needs it to write a dataset and does not say so.
    'importlib_resources>=6',
    'scikit-learn>=1.5,<2',
    'tomli-w>=1.1',
    # Reads what files say, of which nothing is trusted.
    'pydantic>=2.7,<3',
    # Plays runs on preemptible workers through.
    'simpy>=4.1,<5',
    # For influence explore.
    'starlette>=0.40,<2',
    'uvicorn>=0.30,<1',
    # For the example tasks of images and the demo.
    'optax>=0.2.5,<0.3',
  ],
  extras_require={
    # For the example tasks of texts.
    'examples': ['sacrebleu>=2.4', 'tokenizers>=0.20'],
    'dataflow': ['apache-beam[gcp]>=2.70,<3'],
    # Of the container's variants this one needs nothing more.
    'cpu': [],
    'cuda': ['jax[cuda12]>=0.9,<0.12'],
    'tpu': ['jax[tpu]>=0.9,<0.12'],
    # For from_torch. Newer PyTorch has lost what torchax looks up in it.
    'torch': ['torch>=2.8,<2.10', 'torchax>=0.0.13,<0.1'],
    'dask': ['dask[distributed]>=2025.1'],
    'test': [
      'apache-beam[gcp]>=2.70,<3',
      # Pages are looked at where there is a Chromium.
      'axe-playwright-python>=0.1.4',
      'dask[distributed]>=2025.1',
      'faiss-cpu>=1.9',
      'gcp-storage-emulator>=2024.8.3',
      'grain>=0.2.12,<0.3',
      # Reads docstrings as documentation tools do.
      'griffe>=1.7',
      # The test client of starlette.
      'httpx>=0.27',
      'hypothesis>=6',
      'google-cloud-batch>=0.17',
      'kubernetes-validate>=1.30',
      'mypy>=1.15',
      'playwright>=1.40',
      # Reads the rules of alerts as Prometheus does.
      'promql-parser>=0.4',
      'psutil>=5',
      'pytest>=8',
      'pytest-xdist>=3.6',
      'python-hcl2>=5',
      'ruff>=0.9',
      'sacrebleu>=2.4',
      'tokenizers>=0.20',
    ],
    'benchmark': ['faiss-cpu>=1.9', 'psutil>=5'],
  },
  entry_points={
    'console_scripts': [
      'influence=launch.cli:main',
      'influence-worker=launch.running.worker_boot:main',
    ]
  },
)
