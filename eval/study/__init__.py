"""A study: sources × sizes × draws × objectives × models × seeds, pre-trained, transferred to targets, tabulated and plotted."""
