"""The panels of the monitor, one class a part of the page; each draws a snapshot on a canvas."""
