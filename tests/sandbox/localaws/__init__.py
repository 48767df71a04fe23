"""The local AWS of wekactl's tests: moto in one process, and what it lacks.

server      the HTTP server and the control API under /sandbox/
calls       every AWS call passes here: named, delayed, checked, recorded
functions   Lambda functions really run
fixups/     where moto's answers differ from AWS's
stack       a Weka-like CloudFormation stack
"""

ACCOUNT = "123456789012"
