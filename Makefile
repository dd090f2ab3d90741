# holdfast, built with PGXS.
#
#	make && sudo make install			PG_CONFIG=... picks the server
#	make test [ONLY="name ..."]			install what is missing, build, install, run every test
#	make expected [ONLY="name ..."]		write expected/ from what the tests print
#	make matrix [MAJORS="17 18"]		the tests on PostgreSQL 15, 17 and 18 (scripts/matrix)
#	make soak [PART="name ..."]			the long tests, for hours; SCALE=0.01: to see that they work
#	make demo
#	make bench [CASE="name ..."]			measure, beside its peers; QUICK=1: in five minutes
#	make installcheck					the tests, on a running server

EXTENSION   = holdfast
MODULE_big  = holdfast
OBJS       := $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))
EXTVERSION := $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" holdfast.control)

ifneq ($(EXTVERSION),$(sort $(shell sed -n 's/^[[:blank:]]*"version": "\(.*\)".*/\1/p' META.json)))
$(error META.json must say version $(EXTVERSION), as holdfast.control does)
endif

# The install script: tables first, then the functions over them; rights last.
PARTS = schema queue policy stream job ledger evidence attempt \
	key backoff enqueue claim lease settle reconcile operate maintain metrics import watch timeline ps explain forensics span pair stop timeout report recover \
	ddl verify guard access seal
SQL       := $(wildcard $(PARTS:%=sql/holdfast/%.sql))
UNLISTED  := $(filter-out $(SQL),$(wildcard sql/holdfast/*.sql))
$(if $(UNLISTED),$(warning not in PARTS, and so not installed: $(UNLISTED)))
DATA_built = sql/holdfast--$(EXTVERSION).sql
# sql/released/ keeps install scripts as they were released, never to be changed:
# test/t/016_update.pl updates from the oldest and compares with a fresh install.
DATA      := $(wildcard sql/holdfast--*--*.sql sql/released/holdfast--*.sql)

# fmgr's calling convention and the server's headers need the three exceptions.
WERROR    ?= -Werror
PG_CFLAGS  = -Wall -Wextra $(WERROR) -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers
PG_CPPFLAGS = -DHOLDFAST_VERSION='"$(EXTVERSION)"'
# Debian's PGXS would want clang, for bitcode that inlines nothing here.
override with_llvm := no

# pg_isolation_regress looks for expected/ in its output folder, hence the dot.
REGRESS        := $(patsubst test/sql/%.sql,%,$(sort $(wildcard test/sql/*.sql)))
REGRESS_OPTS    = --inputdir=test
ISOLATION      := $(patsubst test/specs/%.spec,%,$(sort $(wildcard test/specs/*.spec)))
ISOLATION_OPTS  = --inputdir=test --outputdir=. --load-extension=holdfast
PROVE_TESTS    := $(sort $(wildcard test/t/*.pl))
TAP_TESTS      := $(PROVE_TESTS)

# The goals that begin before there is a server to build for.
SCRIPTED = test expected matrix soak demo bench

ifneq ($(filter-out $(SCRIPTED),$(or $(MAKECMDGOALS),all)),)
PG_CONFIG ?= pg_config
PGXS      := $(wildcard $(shell $(PG_CONFIG) --pgxs))
$(if $(PGXS),,$(error $(PG_CONFIG) knows no PGXS: scripts/install-deps installs the server's development files))
include $(PGXS)

$(OBJS): src/holdfast.h holdfast.control

$(DATA_built): $(SQL) Makefile holdfast.control
	printf '%s\n' '\echo Use "CREATE EXTENSION holdfast" to load this file. \quit' | cat - $(SQL) >$@
endif

.PHONY: $(SCRIPTED)
test demo:
	@scripts/$@ $(ONLY)
expected:
	@scripts/test --accept $(ONLY)
soak:
	@scripts/soak $(PART)
matrix:
	@scripts/matrix $(MAJORS)
bench:
	@scripts/bench $(CASE)
