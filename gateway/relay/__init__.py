"""Requests passed on to other servers, and their answers passed back, byte for byte."""
