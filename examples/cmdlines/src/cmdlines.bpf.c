#include <bpf_wq/executor.bpf.h>
#include <bpf/bpf_tracing.h>

struct mm_struct {
	unsigned long arg_start, arg_end;
} __attribute__((preserve_access_index));

struct task_struct {
	int tgid;
	struct mm_struct *mm;
} __attribute__((preserve_access_index));

extern struct task_struct *bpf_task_from_pid(int pid) __ksym;
extern void bpf_task_release(struct task_struct *task) __ksym;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536);
} lines SEC(".maps");

struct job {
	int pid;
};

/* Runs in a kernel worker, where reading another process's memory may sleep. */
static int read_line(struct job *job, struct bpf_wq_run *run)
{
	struct task_struct *task = bpf_task_from_pid(job->pid);
	unsigned long start, length;
	char line[128] = {};
	int err;

	if (!task)
		return -ENOENT;
	start = BPF_CORE_READ(task, mm, arg_start);
	length = BPF_CORE_READ(task, mm, arg_end) - start;
	if (length > sizeof(line))
		length = sizeof(line);
	err = bpf_copy_from_user_task(line, length, (void *)start, task, 0);
	bpf_task_release(task);
	return err ?: bpf_ringbuf_output(&lines, line, sizeof(line), 0);
}

/* A queue of at most 1024 jobs, and 4 workers. */
BPF_WQ_EXECUTOR(reads, struct job, 1024, 4, read_line);

/* Runs within execve(2), where nothing may sleep. */
SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task)
{
	struct job job = {.pid = task->tgid};

	reads_submit(&job);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
