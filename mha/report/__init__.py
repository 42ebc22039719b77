"""What finished runs say: tables, curves and one HTML page, made from the files of their workdirs alone."""

from mha.report import page, plots, runs, table

__all__ = ['page', 'plots', 'runs', 'table']
