/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Decides at once what processes may execute, open and connect to, by what is known. What is not
 * known is decided by default, and becomes a job that asks the agent, in user space.
 */
#include <bpf_wq/executor.bpf.h>
#include <bpf/bpf_tracing.h>
#include "verdict.h"

#ifndef EPERM
#define EPERM 1
#endif

/* How often verdicts that have expired are removed, as long as there are any. */
#define SWEEP_NS 250000000ULL

/* A sweep is submitted, and has not come to its end. */
static __u64 is_sweep_due;

/* A sweep is told nothing, and an executor has jobs of some type. */
struct sweep {
	__u64 unused;
};

/* Verdicts that a sweep has not removed. On the stack the verifier would follow each number. */
static __u64 left;

/* Jobs that wait look within this time, twice that as workers may be busy. */
static __always_inline __u64 late_ns(void)
{
	return 2 * settings.again_ns;
}

/* One that is asked for again in between stays; of others nobody can ask again. */
static long sweep_verdict(void *map, struct subject *subject, struct verdict *verdict, __u64 *now)
{
	__u64 expired_ns = bpf_wq_read(verdict->expires_ns);
	__u64 expires_ns = expired_ns;

	/* Jobs have waited for it. */
	if (expires_ns && verdict->why == BY_ANSWER_BAD && settings.hooks[subject->hook & 3].signal)
		expires_ns += late_ns();
	if (!expires_ns || expires_ns > *now ||
	    __sync_val_compare_and_swap(&verdict->expires_ns, expired_ns, IS_SWEPT) != expired_ns) {
		left++;
		return 0;
	}
	forget(subject);
	bpf_wq_add(counts.expired, 1);
	return 0;
}

static long sweep_answer(void *map, struct subject *subject, struct answer *answer, __u64 *now)
{
	if (answer->expires_ns + late_ns() <= *now)
		bpf_map_delete_elem(&answers, subject);
	return 0;
}

/* Runs in a kernel worker, which other work need not wait for. */
static int sweep(struct sweep *unused, struct bpf_wq_run *run)
{
	__u64 now = bpf_ktime_get_boot_ns();

	left = 0;
	bpf_for_each_map_elem(&verdicts, sweep_verdict, &now, 0);
	bpf_for_each_map_elem(&answers, sweep_answer, &now, 0);
	run->retry_ns = SWEEP_NS;
	if (bpf_wq_is_draining(run))
		return 0;
	if (left)
		return -EAGAIN;
	/* Whoever creates a verdict from here on submits the next sweep, or is seen below. */
	__sync_lock_test_and_set(&is_sweep_due, 0);
	if (bpf_wq_read(counts.created) == bpf_wq_read(counts.removed))
		return 0;
	return __sync_val_compare_and_swap(&is_sweep_due, 0, 1) ? 0 : -EAGAIN;
}

BPF_WQ_EXECUTOR(sweeps, struct sweep, 4, 1, sweep);

static __noinline void sweep_later(void)
{
	struct bpf_wq_options options = {.delay_ns = SWEEP_NS};
	struct sweep sweep = {};
	__u64 id;

	if (bpf_wq_read(is_sweep_due) || __sync_val_compare_and_swap(&is_sweep_due, 0, 1))
		return;
	if (sweeps_submit_with(&sweep, &options, &id))
		__sync_lock_test_and_set(&is_sweep_due, 0);
}

/* Hands the agent a question, or the process to stop. -EAGAIN: there is no place, for now. */
static __always_inline int hand_over(struct question *question, __u32 what)
{
	question->what = what;
	if (!bpf_ringbuf_output(&to_agent, question, sizeof(*question), 0))
		return 0;
	bpf_wq_add(counts.agent_full, 1);
	return -EAGAIN;
}

static __noinline int learn(struct question *question, __u32 action, __u32 why, __u64 expires_ns)
{
	struct verdict verdict = {.expires_ns = expires_ns, .action = action, .why = why};

	/* No memory. */
	if (bpf_map_update_elem(&verdicts, &question->subject, &verdict, BPF_EXIST))
		return -EAGAIN;
	tell(question, action, why, 0);
	return 0;
}

/*
 * Is 0 if there was an answer, which holds from when it was given: it may have expired by now, and
 * still says that whoever has waited for it is to be stopped.
 */
static __always_inline int answered(struct question *question)
{
	struct answer *answer = bpf_map_lookup_elem(&answers, &question->subject);
	int err;

	if (!answer || answer->expires_ns <= question->began_ns)
		return -EAGAIN;
	err = learn(question, answer->action, answer->why, answer->expires_ns);
	if (!err) {
		bpf_wq_add(counts.learned, 1);
		bpf_map_delete_elem(&answers, &question->subject);
	}
	return err;
}

/* Is 0 if no answer is waited for any more. */
static __always_inline int give_up(struct question *question, __u64 now)
{
	__u32 hook = question->subject.hook & 3;
	int err;

	err = learn(question, settings.hooks[hook].unreachable, BY_UNREACHABLE,
		    now + settings.unreachable_ns);
	if (!err)
		bpf_wq_add(counts.unreachable, 1);
	return err;
}

static __always_inline int put(struct question *question, __u64 now)
{
	int err;

	if (now < question->again_ns)
		return -EAGAIN;
	err = hand_over(question, TO_ANSWER);
	if (!err) {
		bpf_wq_add(counts.put, 1);
		question->again_ns = now + (settings.again_ns << (question->put++ & 15));
	}
	return -EAGAIN;
}

/*
 * Runs in a kernel worker, again and again, until there is an answer, which may be none. A process
 * that was let in meanwhile and should not have been is then stopped, by the agent.
 */
static int ask(struct question *question, struct bpf_wq_run *run)
{
	struct verdict *verdict = bpf_map_lookup_elem(&verdicts, &question->subject);
	__u64 now = bpf_ktime_get_boot_ns();
	__u32 hook = question->subject.hook & 3;

	if (run->retry_ns > settings.again_ns)
		run->retry_ns = settings.again_ns;
	if (verdict && !bpf_wq_read(verdict->expires_ns)) {
		if (!question->began_ns)
			question->began_ns = now;
		if (!answered(question) ||
		    (question->asks && now >= question->began_ns + settings.give_up_ns &&
		     !give_up(question, now))) {
			verdict = bpf_map_lookup_elem(&verdicts, &question->subject);
		} else if (bpf_wq_is_draining(run)) {
			if (!forget(&question->subject))
				bpf_wq_add(counts.forgotten, 1);
			return 0;
		} else {
			return question->asks ? put(question, now) : -EAGAIN;
		}
	}
	if (!question->let_in || !verdict || verdict->why != BY_ANSWER_BAD ||
	    verdict->action != DENY || !settings.hooks[hook].signal)
		return 0;
	if (hand_over(question, TO_REVOKE))
		return bpf_wq_is_draining(run) ? -ENOSPC : -EAGAIN;
	bpf_wq_add(counts.revoked, 1);
	return 0;
}

BPF_WQ_EXECUTOR(questions, struct question, 1024, 4, ask);

enum {
	IS_KNOWN,
	IS_ASKED_FOR, /* for this process, too */
	IS_UNKNOWN,   /* and nobody asks */
	IS_UNTRACKED, /* the map is full, or it is about to be gone */
};

/*
 * Whether this program is the one that asks. Of all that find a verdict expired, one is. In
 * `found` is what is to be done, and who has asked before.
 */
static __noinline int look_up(const struct question *question, struct verdict *found)
{
	struct verdict *verdict = bpf_map_lookup_elem(&verdicts, &question->subject);
	__u64 asked_by, expires_ns, now_ns = IS_SWEPT;
	int err;

	if (!verdict) {
		err = bpf_map_update_elem(&verdicts, &question->subject, found, BPF_NOEXIST);
		if (!err) {
			bpf_wq_add(counts.created, 1);
			sweep_later();
			return IS_UNKNOWN;
		}
		verdict = bpf_map_lookup_elem(&verdicts, &question->subject);
		if (!verdict)
			return IS_UNTRACKED;
	}
	expires_ns = bpf_wq_read(verdict->expires_ns);
	if (expires_ns > bpf_ktime_get_boot_ns()) {
		found->action = verdict->action;
		found->why = verdict->why;
		return IS_KNOWN;
	}
	asked_by = bpf_wq_read(verdict->asked_by);
	bpf_wq_write(verdict->asked_by, found->asked_by);
	found->asked_by = asked_by;
	if (!expires_ns)
		return IS_ASKED_FOR;
	if (expires_ns != IS_SWEPT)
		now_ns = __sync_val_compare_and_swap(&verdict->expires_ns, expires_ns, 0);
	if (now_ns == IS_SWEPT)
		return IS_UNTRACKED;
	if (now_ns == expires_ns)
		return IS_UNKNOWN;
	/* Another one has just asked again; before, it was asked for what has expired. */
	found->asked_by = 0;
	return IS_ASKED_FOR;
}

/* What may be done now. It waits for nobody. */
static __always_inline int decide(struct question *question, struct file *file, __u32 rule)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct verdict found = {.action = rule, .why = BY_RULE};
	int is = IS_KNOWN;
	__u64 process;

	question->process = bpf_get_current_pid_tgid() >> 32;
	question->started_ns = task->group_leader->start_boottime;
	/* Numbers, all below 2^22, are given again. */
	process = question->started_ns << 22 | question->process;
	if (rule >= ASK) {
		found.asked_by = process;
		found.action = settings.hooks[question->subject.hook & 3].unknown;
		found.why = BY_DEFAULT;
		is = look_up(question, &found);
	}
	count_decision(found.action);
	if (is == IS_KNOWN && found.action == ALLOW)
		return 0;
	if (file && bpf_d_path(&file->f_path, question->path, sizeof(question->path)) < 0)
		question->path[0] = 0;
	tell(question, found.action, found.why, question->process);
	if (is != IS_KNOWN)
		bpf_wq_add(counts.unknown, 1);
	switch (is) {
	case IS_ASKED_FOR:
		/* Its own job has a process stopped that was let in; one is enough. */
		if (found.asked_by == process || found.action == DENY)
			break;
		/* fallthrough */
	case IS_UNKNOWN:
		question->asks = is == IS_UNKNOWN;
		question->let_in = found.action != DENY;
		if (!questions_submit(question))
			break;
		bpf_wq_add(counts.queue_full, 1);
		/* Whoever comes next asks. */
		if (question->asks)
			forget(&question->subject);
		break;
	case IS_UNTRACKED:
		bpf_wq_add(counts.no_place, 1);
	}
	return found.action == DENY ? -EPERM : 0;
}

SEC("lsm/bprm_check_security")
int BPF_PROG(on_exec, struct linux_binprm *bprm, int ret)
{
	struct question question = {};

	if (ret || !is_watched())
		return ret;
	subject_of_file(bprm->file, OF_EXEC, &question.subject);
	return decide(&question, bprm->file, rule_of_file(bprm->file));
}

/*
 * The process is at work with its new program. One that was let in before its verdict was known is
 * either seen here, or by the agent, which looks for it after that.
 */
SEC("lsm/bprm_committed_creds")
int BPF_PROG(on_executed, struct linux_binprm *bprm)
{
	__u32 signal = settings.hooks[OF_EXEC].signal;
	struct subject subject = {};
	struct verdict *verdict;

	if (!signal || !is_watched())
		return 0;
	subject_of_file(bprm->file, OF_EXEC, &subject);
	verdict = bpf_map_lookup_elem(&verdicts, &subject);
	if (verdict && verdict->why == BY_ANSWER_BAD && verdict->action == DENY &&
	    bpf_wq_read(verdict->expires_ns) > bpf_ktime_get_boot_ns()) {
		bpf_send_signal(signal);
		bpf_wq_add(counts.revoked, 1);
	}
	return 0;
}

/* What IMA has measured before the program began. A program that sleeps cannot look at the scope.
 */
SEC("lsm.s/bprm_committed_creds")
int BPF_PROG(on_measured, struct linux_binprm *bprm)
{
	struct subject subject = {};
	struct digest digest = {};
	struct verdict *verdict;
	long algorithm;

	subject_of_file(bprm->file, OF_EXEC, &subject);
	verdict = bpf_map_lookup_elem(&verdicts, &subject);
	if (!verdict || bpf_wq_read(verdict->expires_ns))
		return 0;
	algorithm = bpf_ima_inode_hash(bprm->file->f_inode, digest.bytes, sizeof(digest.bytes));
	if (algorithm < 0)
		return 0;
	digest.algorithm = algorithm;
	bpf_map_update_elem(&digests, &subject, &digest, BPF_ANY);
	return 0;
}

/* Of all files, only those that have a rule are watched. */
SEC("lsm/file_open")
int BPF_PROG(on_open, struct file *file, int ret)
{
	struct question question = {};
	struct subject *opened;
	__u32 thread = bpf_get_current_pid_tgid();
	__u32 rule;

	/* Whoever is watched is no agent, whatever thread has had this number before. */
	if (!is_watched()) {
		opened = bpf_map_lookup_elem(&openers, &thread);
		/* The first one: overlayfs then opens the file that is below. */
		if (opened && !opened->of[0])
			subject_of_file(file, OF_OPEN, opened);
		return ret;
	}
	/* To execute a file is another hook's. */
	if (ret || file->f_flags & FMODE_EXEC)
		return ret;
	rule = rule_of_file(file);
	if (rule == NO_RULE)
		return 0;
	subject_of_file(file, OF_OPEN, &question.subject);
	return decide(&question, file, rule);
}

SEC("lsm/socket_connect")
int BPF_PROG(on_connect, void *socket, void *address, int length, int ret)
{
	struct question question = {};

	if (ret || !is_watched() || !subject_of_address(address, length, &question.subject))
		return ret;
	return decide(&question, NULL, rule_of_address(&question.subject));
}

char LICENSE[] SEC("license") = "GPL";
