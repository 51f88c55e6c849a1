"""The gateway as a Slurm job: see serve.sbatch."""
