// The alert rules: each one written once, for Grafana's provisioning and for the unit tests of Prometheus' own tool.

export interface Alert {
  uid: string;
  title: string;
  /** PromQL whose value is compared with `limit`; a series for each thing that can be wrong. */
  expr: string;
  operator: 'gt' | 'lt';
  limit: number;
  /** How long it must be so. */
  wait: string;
  severity: 'critical' | 'warning';
  summary: string;
  runbook: string;
  /** Title of the panel on the Pipeline dashboard that shows it. */
  panel: string;
}

export const ALERTS: Alert[] = [
  {
    uid: 'tidemark-ledger',
    title: 'Ledger out of balance',
    expr: 'query:tidemark_processor_ledger_imbalance:abs_sum',
    operator: 'gt',
    limit: 0,
    wait: '1m',
    severity: 'critical',
    summary: 'The query {{ $labels.query }} has read readings that it does not account for.',
    runbook:
      'read = used + late + dead + filtered holds in every commit; when it does not, it is a fault of the program and not of the data. Keep the topics (iot and iot.state.<query>), note the version and the output of `processor why`, and report it. Results written until then can be checked with `processor explain`.',
    panel: 'Ledger',
  },
  {
    uid: 'tidemark-part-down',
    title: 'A part is down',
    // A container that is gone has no address in the DNS, and then no `up` either.
    expr: '1 - up{job=~"producer|processor|sink"} > 0 or absent(up{job="producer"}) or absent(up{job="processor"}) or absent(up{job="sink"})',
    operator: 'gt',
    limit: 0,
    wait: '1m',
    severity: 'critical',
    summary: 'The {{ $labels.job }} does not answer.',
    runbook:
      'Look whether its container runs (`docker compose ps`) and what it said last (`docker compose logs --tail 50 PART`). Nothing is lost meanwhile: readings wait at their devices or in the log, and each part goes on where it stopped. If it ends again and again, its last line says in one sentence why.',
    panel: 'Parts',
  },
  {
    uid: 'tidemark-watermark-lag',
    title: 'Watermark lags',
    // Not when the whole fleet is silent: then time has nothing to move by.
    expr: 'query:tidemark_processor_watermark_lag_seconds:max and on () (sum(job:tidemark_producer_published:rate1m) > 0)',
    operator: 'gt',
    limit: 120,
    wait: '2m',
    severity: 'warning',
    summary:
      'Readings arrive, but the windows of {{ $labels.query }} have been closing late for two minutes ({{ humanizeDuration $value }} behind).',
    runbook:
      'Ask `processor why`: it names what holds the next result back. Usual reasons: rows are waiting (see "Consumer lag": add a processor, up to one for each partition); all readings of a partition are old, because devices deliver what they had buffered or their clocks are behind; one partition has no readings, until its idle timeout has passed.',
    panel: 'Watermark lag',
  },
  {
    uid: 'tidemark-dead-rate',
    title: 'Dead readings',
    expr: 'query:tidemark_processor_dead:ratio5m',
    operator: 'gt',
    limit: 0.01,
    wait: '5m',
    severity: 'warning',
    summary: '{{ humanizePercentage $value }} of the readings for {{ $labels.query }} cannot be read.',
    runbook:
      'See what they are: `processor lanes ls`, then `processor lanes show --lane dead`. `not_json` and `wrong_type`: a device or its firmware sends something else than the schema says. `future`: a clock is ahead. They lie whole in iot.dead; after the query or the device has been put right, `processor lanes replay --query NAME` counts them.',
    panel: 'Late, dead and filtered',
  },
  {
    uid: 'tidemark-unreadable',
    title: 'Unreadable messages',
    expr: 'job:tidemark_producer_dead:ratio5m',
    operator: 'gt',
    limit: 0.01,
    wait: '5m',
    severity: 'warning',
    summary: '{{ humanizePercentage $value }} of what the devices send is no reading.',
    runbook:
      'See what it is: `processor lanes show --lane dead`; the reason is in each row. Usually the payload has another format than `--format` says, or a topic of other messages is among `--topic`. It lies whole in iot.dead.',
    panel: 'Errors',
  },
  {
    uid: 'tidemark-late-rate',
    title: 'Late readings',
    expr: 'query:tidemark_processor_late:ratio5m',
    operator: 'gt',
    limit: 0.05,
    wait: '10m',
    severity: 'warning',
    summary: '{{ humanizePercentage $value }} of the readings for {{ $labels.query }} come after their windows have closed.',
    runbook:
      'See whose: `processor lanes show --lane late`. Single devices with a slow clock or link: `watermark_by` gives each its own time. The whole fleet: lengthen `source.watermark` in the query file. What was late can be put into its windows with `processor lanes replay --query NAME --lane late`.',
    panel: 'Late, dead and filtered',
  },
  {
    uid: 'tidemark-processor-lag',
    title: 'A query falls behind',
    expr: 'query:tidemark_processor_lag:seconds',
    operator: 'gt',
    limit: 60,
    wait: '5m',
    severity: 'warning',
    summary: 'The query {{ $labels.query }} has been more than a minute of readings behind for five minutes.',
    runbook:
      'If "From device to database" shows fewer rows processed than readings published, it is too slow: start another processor (`docker compose up --scale processor=2`), up to one for each partition. If nothing is processed at all, `processor why` says what it waits for. After an outage the lag falls by itself.',
    panel: 'Consumer lag',
  },
  {
    uid: 'tidemark-sink-lag',
    title: 'A database falls behind',
    expr: 'output:tidemark_sink_lag:seconds',
    operator: 'gt',
    limit: 60,
    wait: '5m',
    severity: 'warning',
    summary: 'The output {{ $labels.output }} of the sink has been more than a minute of rows behind for five minutes.',
    runbook:
      'If "Errors" shows retries, the database is away or refuses: its words are in the log of the sink and in its `/status`. If not, it is slow: see "Commit times" (Database batch) and give it memory or a faster disk. Rows wait in the log as long as its retention lasts.',
    panel: 'Consumer lag',
  },
  {
    uid: 'tidemark-rejected',
    title: 'Rows rejected by a database',
    // A reason's series begins with its first rows, which are no increase.
    expr: 'sum by (output) (increase(tidemark_sink_rejected_total[10m])) > 0 or sum by (output) (tidemark_sink_rejected_total unless tidemark_sink_rejected_total offset 10m)',
    operator: 'gt',
    limit: 0,
    wait: '0s',
    severity: 'warning',
    summary: 'The output {{ $labels.output }} has put {{ humanize $value }} rows into the dead lane in ten minutes.',
    runbook:
      "`processor lanes show --lane dead` has the database's own words for each row. `series_budget`: more sensors than `max_series` allows. A type conflict: a column of the query has changed its type; give the query another name, or set `types` in the mapping.",
    panel: 'Errors',
  },
  {
    uid: 'tidemark-disk-low',
    title: 'Disk almost full',
    expr: 'instance:tidemark_sink_disk_free:ratio',
    operator: 'lt',
    limit: 0.1,
    wait: '5m',
    severity: 'critical',
    summary: 'Only {{ humanizePercentage $value }} of the disk with the volumes is free.',
    runbook:
      'When it is full, the log takes no more readings and devices must wait. See "Disk" for what grows. Shorten the retention of the topic iot (`kafka-configs.sh --alter --add-config retention.ms=...`) or of the bucket (`influx bucket update --retention`), remove images that nobody uses (`docker image prune`), or give the machine a larger disk.',
    panel: 'Disk',
  },
  {
    uid: 'tidemark-disk-soon',
    title: 'Disk full within a day',
    // From three hours on: what a start does to a disk says nothing about a day.
    expr: 'predict_linear(tidemark_sink_disk_free_bytes[6h], 86400) and tidemark_sink_disk_free_bytes offset 3h and instance:tidemark_sink_disk_free:ratio < 0.5',
    operator: 'lt',
    limit: 0,
    wait: '1h',
    severity: 'warning',
    summary: 'At the pace of the last six hours the disk with the volumes is full within a day.',
    runbook:
      'See "Disk almost full" for what to do, while there is time. If something is catching up after an outage, this passes by itself.',
    panel: 'Disk',
  },
];
